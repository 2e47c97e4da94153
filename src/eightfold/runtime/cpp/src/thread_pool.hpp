// Purpose: share the independent parts of one task among a few threads that wait for work.
// Thread safety: run() may be called from many threads; calls take turns.
#pragma once

#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace eightfold::detail {

class ThreadPool {
 public:
  // `threads` counts the caller's own: 1 starts none.
  explicit ThreadPool(int threads);
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  ~ThreadPool();

  int size() const { return static_cast<int>(threads_.size()) + 1; }

  // Calls part(index, thread) for every index below `count`; thread is below size(). The first exception is
  // thrown again here, after all threads have stopped working.
  using Part = std::function<void(int index, int thread)>;
  void run(int count, const Part& part);

 private:
  void work(int thread);
  void take_parts(std::unique_lock<std::mutex>& guard, int thread);

  std::mutex turn_;
  std::mutex lock_;
  std::condition_variable started_;
  std::condition_variable finished_;
  const Part* part_ = nullptr;
  int next_ = 0;
  int count_ = 0;
  int busy_ = 0;
  bool stopping_ = false;
  std::exception_ptr failure_;
  std::vector<std::thread> threads_;
};

}  // namespace eightfold::detail

#include "thread_pool.hpp"

namespace eightfold::detail {

ThreadPool::ThreadPool(int threads) {
  for (int thread = 1; thread < threads; ++thread) threads_.emplace_back([this, thread] { work(thread); });
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard<std::mutex> guard(lock_);
    stopping_ = true;
  }
  started_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadPool::run(int count, const Part& part) {
  if (threads_.empty() || count == 1) {
    for (int index = 0; index < count; ++index) part(index, 0);
    return;
  }
  const std::lock_guard<std::mutex> turn(turn_);
  std::unique_lock<std::mutex> guard(lock_);
  part_ = &part;
  next_ = 0;
  count_ = count;
  failure_ = nullptr;
  started_.notify_all();
  take_parts(guard, 0);
  finished_.wait(guard, [this] { return busy_ == 0; });
  part_ = nullptr;
  if (failure_) std::rethrow_exception(failure_);
}

// Called and left with the lock held.
void ThreadPool::take_parts(std::unique_lock<std::mutex>& guard, int thread) {
  ++busy_;
  while (next_ < count_ && !failure_) {
    const int index = next_++;
    const Part& part = *part_;
    guard.unlock();
    std::exception_ptr failure;
    try {
      part(index, thread);
    } catch (...) {
      failure = std::current_exception();
    }
    guard.lock();
    if (failure && !failure_) failure_ = failure;
  }
  if (--busy_ == 0) finished_.notify_all();
}

void ThreadPool::work(int thread) {
  std::unique_lock<std::mutex> guard(lock_);
  while (true) {
    started_.wait(guard, [this] { return stopping_ || (part_ != nullptr && next_ < count_ && !failure_); });
    if (stopping_) return;
    take_parts(guard, thread);
  }
}

}  // namespace eightfold::detail

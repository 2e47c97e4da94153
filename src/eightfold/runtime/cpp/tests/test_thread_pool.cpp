#include <doctest/doctest.h>

#include <atomic>
#include <stdexcept>
#include <thread>

#include "thread_pool.hpp"

using eightfold::detail::ThreadPool;

TEST_CASE("every part is done once, by a thread that is not doing another") {
  ThreadPool pool(4);
  for (const int count : {0, 1, 3, 100}) {
    std::vector<std::atomic<int>> done(static_cast<std::size_t>(count));
    std::vector<std::atomic<int>> busy(4);
    pool.run(count, [&](int index, int thread) {
      if (busy[static_cast<std::size_t>(thread)]++ != 0) throw std::logic_error("two at once");
      ++done[static_cast<std::size_t>(index)];
      --busy[static_cast<std::size_t>(thread)];
    });
    for (const auto& each : done) CHECK(each == 1);
  }
}

TEST_CASE("an exception comes back, and the pool goes on") {
  ThreadPool pool(3);
  const auto fails = [](int index, int) {
    if (index == 5) throw std::runtime_error("five");
  };
  CHECK_THROWS_WITH(pool.run(20, fails), "five");
  std::atomic<int> count{0};
  pool.run(20, [&](int, int) { ++count; });
  CHECK(count == 20);
}

TEST_CASE("many threads take turns") {
  ThreadPool pool(2);
  std::atomic<int> count{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int k = 0; k < 200; ++k) pool.run(3, [&](int, int) { ++count; });
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(count == 4 * 200 * 3);
}

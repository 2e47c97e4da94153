#include "session_pool.hpp"

namespace eightfold::detail {

SessionPool::SessionPool(std::unique_ptr<Session> session, int limit, int preprocess_threads)
    : session_(std::move(session)), preprocess_threads_(preprocess_threads), places_(limit) {
  free_.reserve(static_cast<std::size_t>(limit));  // so that giving back cannot fail
}

std::unique_ptr<Request> SessionPool::take() {
  {
    std::unique_lock<std::mutex> guard(lock_);
    returned_.wait(guard, [this] { return places_ > 0; });
    --places_;
    if (!free_.empty()) {
      std::unique_ptr<Request> request = std::move(free_.back());
      free_.pop_back();
      return request;
    }
  }
  try {
    return new_request();
  } catch (...) {
    give(nullptr);
    throw;
  }
}

std::unique_ptr<Request> SessionPool::new_request() const {
  auto request = std::make_unique<Request>();
  request->slot = session_->new_slot();
  request->preprocess.resize(static_cast<std::size_t>(preprocess_threads_));
  for (const TensorSpec& spec : session_->outputs()) request->outputs.push_back({&spec, nullptr});
  return request;
}

void SessionPool::give(std::unique_ptr<Request> request) {
  {
    const std::lock_guard<std::mutex> guard(lock_);
    if (request) free_.push_back(std::move(request));
    ++places_;
  }
  returned_.notify_one();
}

}  // namespace eightfold::detail

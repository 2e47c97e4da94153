// Purpose: one loaded model and the buffers of the requests in flight on it, shared by threads.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <vector>

#include "decode_scratch.hpp"
#include "decoder.hpp"
#include "eightfold/preprocess.hpp"
#include "session.hpp"

namespace eightfold::detail {

// All that one request needs; it belongs to one thread at a time, but for `preprocess`, of which each of the
// threads that share a request has one.
struct Request {
  std::unique_ptr<Slot> slot;
  std::vector<PreprocessScratch> preprocess;
  std::vector<Placement> placements;
  std::vector<Output> outputs;
  std::vector<const void*> input_views;  // of run_tensors
  std::vector<void*> output_views;
  DecodeScratch decode;
};

class SessionPool {
 public:
  SessionPool(std::unique_ptr<Session> session, int limit, int preprocess_threads);

  // Gives its request back when it goes away, after a failed run too: inputs are written anew each time.
  class Lease {
   public:
    explicit Lease(SessionPool& pool) : pool_(&pool), request_(pool.take()) {}
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    ~Lease() { pool_->give(std::move(request_)); }
    Request& operator*() const { return *request_; }
    Request* operator->() const { return request_.get(); }

   private:
    SessionPool* pool_;
    std::unique_ptr<Request> request_;
  };

  const Session& session() const { return *session_; }

 private:
  std::unique_ptr<Request> take();
  std::unique_ptr<Request> new_request() const;
  void give(std::unique_ptr<Request> request);

  std::unique_ptr<Session> session_;
  int preprocess_threads_;
  std::mutex lock_;
  std::condition_variable returned_;
  int places_;  // requests that may still be taken
  std::vector<std::unique_ptr<Request>> free_;
};

}  // namespace eightfold::detail

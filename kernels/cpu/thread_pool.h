// A persistent thread pool. Starting threads for every training step would take as long as the step itself.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>

namespace neuralsdf {

// Tasks 0 <= index < count that several threads execute. The assignment of tasks to threads is not deterministic; the
// result of a task must not depend on it.
class Job {
  public:
    // `task(slot, index)`: slots number the threads; the calling thread has slot 0. `poll`, unless it is empty, is
    // called on the calling thread about ten times per second. If it returns true, the job stops.
    Job(std::int64_t count, const std::function<void(int, std::int64_t)>& task, const std::function<bool()>& poll)
        : count_(count), task_(task), poll_(poll), polled_(std::chrono::steady_clock::now()) {}

    // Runs the job on at most `threads` threads including the calling one; returns false if it was stopped. If the pool
    // is busy with the job of another thread, the calling thread does all the work, so the requested number of threads
    // is never exceeded. After a fork, the child starts its own pool. If tasks throw, the first exception is rethrown
    // after all threads have finished.
    bool run(int threads);

    // Long tasks must call this regularly, and return early if it returns true.
    bool stopped(int slot);

  private:
    friend class Pool;
    void work(int slot);
    void fail();

    const std::int64_t count_;
    const std::function<void(int, std::int64_t)>& task_;
    const std::function<bool()>& poll_;
    std::chrono::steady_clock::time_point polled_;
    std::atomic<std::int64_t> next_{0};
    std::atomic<bool> stopped_{false};
    std::mutex failing_;
    std::exception_ptr failure_;
};

}  // namespace neuralsdf

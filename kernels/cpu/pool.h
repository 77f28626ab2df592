// Threads that stay: starting them for every training step would cost as much as the step.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>

namespace neuralsdf {

// Tasks 0 <= index < count, taken in turn by several threads. Which thread takes which task is chance;
// what a task computes must not depend on it.
class Job {
  public:
    // `task(slot, index)`: slots number the threads, the calling thread has slot 0. `poll`, unless it is
    // empty, is called on the calling thread about ten times a second, and true from it stops the job.
    Job(std::int64_t count, const std::function<void(int, std::int64_t)>& task, const std::function<bool()>& poll)
        : count_(count), task_(task), poll_(poll), polled_(std::chrono::steady_clock::now()) {}

    // Runs on at most `threads` threads, the calling one included; false if it was stopped. When another thread's
    // job has the helpers, the calling thread does all the work: never more threads than asked for. After a fork
    // the child starts helpers of its own. Throws what a task threw first, on whatever thread, once all have ended.
    bool run(int threads);

    // To be asked now and then by a task that takes long; true asks it to return.
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

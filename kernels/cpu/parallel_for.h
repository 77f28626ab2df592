// Distribution of work over threads, and interruption. The partition of the work depends only on its size. So results
// are bitwise identical for any number of threads.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>

#include "cpu/aligned_buffer.h"
#include "cpu/thread_pool.h"

namespace neuralsdf {

// Number of threads that a call may use, including the calling one. `interrupted`, unless it is empty, is called on the
// calling thread about ten times per second. The call throws `Interrupted` after it has returned true.
struct Workers {
    int threads = 1;
    std::function<bool()> interrupted;
};

struct Interrupted : std::exception {
    const char* what() const noexcept override { return "interrupted"; }
};

inline int useful_threads(int threads, std::int64_t tasks) {
    return static_cast<int>(std::max<std::int64_t>(1, std::min<std::int64_t>({threads, tasks, 1024})));
}

// Runs `task(slot, index, stopped)` for index < count. Slots number the threads. Long tasks return early if `stopped()`
// returns true.
template <class Task>
void run_tasks(std::int64_t count, const Workers& workers, const Task& task) {
    Job* running = nullptr;
    const std::function<void(int, std::int64_t)> work = [&](int slot, std::int64_t index) {
        task(slot, index, [&] { return running->stopped(slot); });
    };
    Job job(count, work, workers.interrupted);
    running = &job;
    if (!job.run(workers.threads)) throw Interrupted();
}

// Runs `task(workspace, index, stopped)` for index < count. Each thread has its own workspace of `workspace_size`
// floats.
template <class Task>
void run_with_workspaces(std::int64_t count, const Workers& workers, std::size_t workspace_size, const Task& task) {
    const int threads = useful_threads(workers.threads, count);
    const std::size_t stride = whole_lines(workspace_size);
    const Buffer workspaces = make_buffer(stride * threads);
    run_tasks(count, {threads, workers.interrupted}, [&](int slot, std::int64_t index, const auto& stopped) {
        task(workspaces.get() + stride * slot, index, stopped);
    });
}

}  // namespace neuralsdf

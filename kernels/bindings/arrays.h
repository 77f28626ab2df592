// What every binding of the core shares: arguments checked, memory aligned, work spread over threads without
// the GIL, Ctrl-C heard.
//
// Another thread may write to an argument while it is read without the GIL. Results are then undefined numbers, but
// memory must not be: what decides an index or a size is copied before it is checked, and read from the copy.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <memory>
#include <new>
#include <string>

#include "cpu/pool.h"

namespace neuralsdf {

namespace py = pybind11;

// The data of a C-contiguous, aligned array of T and `dimensions`, or an error that names it.
template <class T>
const T* checked_data(const py::array& array, const char* name, const char* type, int dimensions) {
    const bool fits = array.dtype().equal(py::dtype::of<T>()) && array.ndim() == dimensions &&
                      (array.flags() & py::array::c_style) &&
                      (array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_);
    if (!fits)
        throw py::value_error(std::string(name) + " must be a C-contiguous " + type + " array of " +
                              std::to_string(dimensions) + " dimension" + (dimensions == 1 ? "" : "s"));
    return static_cast<const T*>(array.data());
}

// Raises ValueError with this message unless a number fits.
inline void require(bool fits, const char* message) {
    if (!fits) throw py::value_error(message);
}

// Whether all of `count` numbers are finite.
template <class T>
bool all_finite(const T* data, std::int64_t count) {
    return std::all_of(data, data + count, [](T number) { return std::isfinite(number); });
}

inline const float* floats(const py::array& array, const char* name, int dimensions) {
    return checked_data<float>(array, name, "float32", dimensions);
}

inline const double* doubles(const py::array& array, const char* name, int dimensions) {
    return checked_data<double>(array, name, "float64", dimensions);
}

// Floats, uninitialised, at an address aligned for every vector.
struct AlignedDelete {
    static constexpr std::align_val_t alignment{64};
    void operator()(float* data) const { ::operator delete(data, alignment); }
};
using Buffer = std::unique_ptr<float[], AlignedDelete>;

inline Buffer make_buffer(std::size_t floats) {
    return Buffer(static_cast<float*>(::operator new(floats * sizeof(float), AlignedDelete::alignment)));
}

// Whole cache lines, so that what follows in a buffer is aligned and threads share no line.
inline std::size_t whole_lines(std::size_t floats) { return (floats + 15) / 16 * 16; }

// True, with a Python exception set, if the user pressed Ctrl-C.
inline bool interrupted() {
    const py::gil_scoped_acquire gil;
    return PyErr_CheckSignals() != 0;
}

// Runs `task(slot, index, stopped)` for index < count on several threads, without the GIL held; false, with a
// Python exception set, if the user pressed Ctrl-C.
template <class Task>
bool run_job(std::int64_t count, int threads, const Task& task) {
    Job* running = nullptr;
    const std::function<void(int, std::int64_t)> work = [&](int slot, std::int64_t index) {
        task(slot, index, [&] { return running->stopped(slot); });
    };
    const std::function<bool()> poll = interrupted;
    Job job(count, work, poll);
    running = &job;
    return job.run(threads);
}

inline int useful_threads(int threads, std::int64_t tasks) {
    return static_cast<int>(std::max<std::int64_t>(1, std::min<std::int64_t>({threads, tasks, 1024})));
}

// Runs `task(workspace, index, stopped)` for index < count without the GIL, each thread with a workspace of its own.
template <class Task>
void run_without_gil(std::int64_t count, int threads, std::size_t workspace_size, const Task& task) {
    threads = useful_threads(threads, count);
    const std::size_t stride = whole_lines(workspace_size);
    const Buffer workspaces = make_buffer(stride * threads);
    bool finished;
    {
        const py::gil_scoped_release release;
        finished = run_job(count, threads, [&](int slot, std::int64_t index, const auto& stopped) {
            task(workspaces.get() + stride * slot, index, stopped);
        });
    }
    if (!finished) throw py::error_already_set();
}

}  // namespace neuralsdf

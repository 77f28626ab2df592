// Helpers for all bindings: checked NumPy arrays, execution without the GIL, and Ctrl-C.
//
// While the GIL is released, another thread may write to an argument. The results are then undefined, but memory
// accesses must stay valid. So data that determines an index or a size is copied first; the copy is checked and used.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "cpu/argument_checks.h"
#include "cpu/parallel_for.h"

namespace neuralsdf {

namespace py = pybind11;

// Any NumPy array. The signature declares the dtype T, but nothing is converted; `checked_data` checks the dtype.
template <class T>
class Array : public py::array {
  public:
    using py::array::array;
};

}  // namespace neuralsdf

namespace pybind11::detail {

template <class T>
struct handle_type_name<neuralsdf::Array<T>> {
    static constexpr auto name = const_name("numpy.typing.NDArray[") + npy_format_descriptor<T>::name + const_name("]");
};
template <>
struct handle_type_name<neuralsdf::Array<bool>> {
    static constexpr auto name = const_name("numpy.typing.NDArray[numpy.bool_]");  // this name also exists in NumPy 1
};

}  // namespace pybind11::detail

namespace neuralsdf {

// Returns the data of a C-contiguous, aligned array of T with the given number of dimensions. Throws ValueError with
// the array's name otherwise.
template <class T>
const T* checked_data(const Array<T>& array, const char* name, int dimensions) {
    const py::dtype type = py::dtype::of<T>();
    const bool fits = array.dtype().equal(type) && array.ndim() == dimensions && (array.flags() & py::array::c_style) &&
                      (array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_);
    if (!fits)
        throw py::value_error(std::string(name) + " must be a C-contiguous " + std::string(py::str(type)) +
                              " array of " + std::to_string(dimensions) + " dimension" + (dimensions == 1 ? "" : "s"));
    return static_cast<const T*>(array.data());
}

// As checked_data, for vectors (n, 3).
template <class T>
const T* checked_vectors(const Array<T>& vectors, const char* name) {
    const T* data = checked_data(vectors, name, 2);
    if (vectors.shape(1) != 3) throw py::value_error(std::string(name) + " must have the shape (n, 3)");
    return data;
}

// Creates an uninitialised array.
template <class T>
Array<T> new_array(std::vector<py::ssize_t> shape) {
    return Array<T>(py::dtype::of<T>(), std::move(shape));
}

template <class T>
T* data_of(Array<T>& array) {
    return static_cast<T*>(array.mutable_data());
}

// Creates an array that takes ownership of a vector's memory.
template <class T>
Array<T> array_of(std::vector<T>&& numbers, std::vector<py::ssize_t> shape) {
    auto* const kept = new std::vector<T>(std::move(numbers));
    const py::capsule owner(kept, [](void* data) { delete static_cast<std::vector<T>*>(data); });
    return Array<T>(py::dtype::of<T>(), std::move(shape), kept->data(), owner);
}

// Returns true, with a Python exception set, if the user pressed Ctrl-C.
inline bool interrupted() {
    const py::gil_scoped_acquire gil;
    return PyErr_CheckSignals() != 0;
}

inline Workers workers_of(int threads) { return {threads, interrupted}; }

// Calls `work` without the GIL and returns its result. Rethrows the Python exception if it is interrupted.
template <class Work>
auto without_gil(const Work& work) {
    try {
        const py::gil_scoped_release release;
        return work();
    } catch (const Interrupted&) {
        throw py::error_already_set();
    }
}

// Each file binds a part of the module.
void bind_programs(py::module_& module);
void bind_trainer(py::module_& module);
void bind_bvh(py::module_& module);
void bind_sparse_grid(py::module_& module);

}  // namespace neuralsdf

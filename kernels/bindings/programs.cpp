#include <pybind11/stl.h>

#include <memory>
#include <tuple>

#include "bindings/arrays.h"
#include "cpu/tape/tape_program.h"

namespace neuralsdf {
namespace {

Array<float> evaluate(const Program& program, const Array<float>& points, int threads) {
    const float* x = checked_vectors(points, "points");
    const std::int64_t n = points.shape(0);
    Array<float> values = new_array<float>({n});
    float* y = data_of(values);
    without_gil([&] { program.evaluate(x, n, y, workers_of(threads)); });
    return values;
}

std::tuple<Array<float>, Array<float>> evaluate_with_gradient(const Program& program, const Array<float>& points,
                                                              int threads) {
    const float* x = checked_vectors(points, "points");
    const std::int64_t n = points.shape(0);
    Array<float> values = new_array<float>({n}), gradients = new_array<float>({n, 3});
    float *y = data_of(values), *g = data_of(gradients);
    without_gil([&] { program.evaluate_with_gradient(x, n, y, g, workers_of(threads)); });
    return {values, gradients};
}

std::tuple<Array<double>, Array<bool>> distance(const Program& program, const Array<double>& points,
                                                const Array<double>& matrix, double scale, int threads) {
    const double *x = checked_vectors(points, "points"), *m = checked_data(matrix, "matrix", 2);
    require(matrix.shape(0) == 4 && matrix.shape(1) == 4, "matrix must have the shape (4, 4)");
    const Placement placement = placement_by(m, scale);
    const std::int64_t n = points.shape(0);
    Array<double> distances = new_array<double>({n});
    Array<bool> outside = new_array<bool>({n});
    double* d = data_of(distances);
    bool* beyond = data_of(outside);
    without_gil([&] { program.distance(x, n, placement, d, beyond, workers_of(threads)); });
    return {distances, outside};
}

Rays rays_of(const Array<float>& begin, const Array<float>& directions, const Array<float>& ends) {
    const Rays rays{checked_data(begin, "begin", 2), checked_data(directions, "directions", 2),
                    checked_data(ends, "ends", 1)};
    for (const auto& [array, name] : {std::pair{&begin, "begin"}, std::pair{&directions, "directions"}})
        if (array->shape(0) != ends.shape(0) || array->shape(1) != 3)
            throw py::value_error(std::string(name) + " must have the shape (n, 3), one for each ray");
    return rays;
}

std::tuple<Array<bool>, Array<float>, Array<bool>, Array<bool>, std::int64_t> trace_rays(
    const Program& program, const Array<float>& begin, const Array<float>& directions, const Array<float>& ends,
    const Array<bool>& at_ball, const Array<float>& steps, float max_level, float touch_depth, int max_steps,
    float root_tolerance, int root_steps, int threads) {
    const Rays rays = rays_of(begin, directions, ends);
    const std::int64_t n = ends.shape(0);
    const bool* on_ball = checked_data(at_ball, "at_ball", 1);
    require(at_ball.shape(0) == n, "at_ball must have the shape (n,), one for each ray");
    const float* table = checked_data(steps, "steps", 1);
    require(steps.shape(0) <= 1 << 24, "steps must have 2 to 2^24 levels");
    Array<bool> hit = new_array<bool>({n}), unresolved = new_array<bool>({n}), buried = new_array<bool>({n});
    Array<float> t = new_array<float>({n});
    Tracing tracing{};
    tracing.at_ball = on_ball;
    tracing.steps = table;
    tracing.levels = static_cast<int>(steps.shape(0));
    tracing.max_level = max_level;
    tracing.touch_depth = touch_depth;
    tracing.root_tolerance = root_tolerance;
    tracing.max_steps = max_steps;
    tracing.root_steps = root_steps;
    tracing.hit = data_of(hit);
    tracing.t = data_of(t);
    tracing.unresolved = data_of(unresolved);
    tracing.buried = data_of(buried);
    const std::int64_t evaluations = without_gil([&] { return program.trace(rays, n, tracing, workers_of(threads)); });
    return {hit, t, unresolved, buried, evaluations};
}

std::tuple<Array<float>, std::int64_t> shadow_rays(const Program& program, const Array<float>& begin,
                                                   const Array<float>& directions, const Array<float>& ends,
                                                   float first, float min_step, float max_step, int steps,
                                                   float sharpness, float dark, int threads) {
    const Rays rays = rays_of(begin, directions, ends);
    const std::int64_t n = ends.shape(0);
    Array<float> lit = new_array<float>({n});
    const SoftShadow cone{first, min_step, max_step, steps, sharpness, dark, data_of(lit)};
    const std::int64_t evaluations =
        without_gil([&] { return program.soft_shadow(rays, n, cone, workers_of(threads)); });
    return {lit, evaluations};
}

Array<float> field_points(const TapeProgram& tape, const Array<float>& points, int threads) {
    const float* x = checked_vectors(points, "points");
    const std::int64_t n = points.shape(0);
    Array<float> places = new_array<float>({tape.field_count(), n, 3});
    float* to = data_of(places);
    without_gil([&] { tape.field_points(x, n, to, workers_of(threads)); });
    return places;
}

const float* checked_field_values(const TapeProgram& tape, const Array<float>& points, const Array<float>& values) {
    const float* data = checked_data(values, "values", 2);
    require(values.shape(0) == tape.field_count() && values.shape(1) == points.shape(0),
            "values must have the shape (f, n), one for each field and point");
    return data;
}

Array<float> evaluate_fields(const TapeProgram& tape, const Array<float>& points, const Array<float>& values,
                             int threads) {
    const float *x = checked_vectors(points, "points"), *known = checked_field_values(tape, points, values);
    const std::int64_t n = points.shape(0);
    Array<float> result = new_array<float>({n});
    float* y = data_of(result);
    without_gil([&] { tape.evaluate_fields(x, n, known, y, workers_of(threads)); });
    return result;
}

std::tuple<Array<float>, Array<float>> evaluate_fields_with_gradient(const TapeProgram& tape,
                                                                     const Array<float>& points,
                                                                     const Array<float>& values,
                                                                     const Array<float>& gradients, int threads) {
    const float *x = checked_vectors(points, "points"), *known = checked_field_values(tape, points, values);
    const float* field_gradients = checked_data(gradients, "gradients", 3);
    const std::int64_t n = points.shape(0);
    require(gradients.shape(0) == tape.field_count() && gradients.shape(1) == n && gradients.shape(2) == 3,
            "gradients must have the shape (f, n, 3), one for each field and point");
    Array<float> result = new_array<float>({n}), result_gradients = new_array<float>({n, 3});
    float *y = data_of(result), *g = data_of(result_gradients);
    without_gil([&] { tape.evaluate_fields_with_gradient(x, n, known, field_gradients, y, g, workers_of(threads)); });
    return {result, result_gradients};
}

}  // namespace

void bind_programs(py::module_& module) {
    py::class_<Program, std::shared_ptr<Program>>(module, "Program", "Evaluates a field at points.")
        .def("evaluate", evaluate, "Values (n,) at points (n, 3).", py::arg("points"), py::arg("threads"))
        .def("evaluate_with_gradient", evaluate_with_gradient, "Values (n,) and gradients (n, 3) at points (n, 3).",
             py::arg("points"), py::arg("threads"))
        .def("distance", distance,
             "Values (n,) in mesh units at points (n, 3) in mesh space; mask (n,) of points outside the unit ball.",
             py::arg("points"), py::arg("matrix"), py::arg("scale"), py::arg("threads"))
        .def("trace", trace_rays,
             "First surface along rays (n,): hit, t, unresolved, buried (n,), and the number of evaluations.",
             py::arg("begin"), py::arg("directions"), py::arg("ends"), py::arg("at_ball"), py::arg("steps"),
             py::arg("max_level"), py::arg("touch_depth"), py::arg("max_steps"), py::arg("root_tolerance"),
             py::arg("root_steps"), py::arg("threads"))
        .def("soft_shadow", shadow_rays,
             "Fraction of a light (n,) that reaches the origins of rays; number of evaluations.", py::arg("begin"),
             py::arg("directions"), py::arg("ends"), py::arg("first"), py::arg("min_step"), py::arg("max_step"),
             py::arg("steps"), py::arg("sharpness"), py::arg("dark"), py::arg("threads"));
    py::class_<NetworkProgram, Program, std::shared_ptr<NetworkProgram>>(module, "NetworkProgram",
                                                                         "A network, from `Core.compile`.")
        .def_property_readonly("by_tiles", &NetworkProgram::by_tiles, "Whether it is evaluated with bfloat16 tiles.");
    py::class_<TapeProgram, Program, std::shared_ptr<TapeProgram>>(module, "TapeProgram",
                                                                   "A tape, from `Core.assemble`.")
        .def("field_points", field_points, "Points (f, n, 3) at which the fields must be evaluated, for points (n, 3).",
             py::arg("points"), py::arg("threads"))
        .def("evaluate_fields", evaluate_fields, "Values (n,) at points (n, 3), from the values (f, n) of fields.",
             py::arg("points"), py::arg("values"), py::arg("threads"))
        .def("evaluate_fields_with_gradient", evaluate_fields_with_gradient,
             "Values (n,) and gradients (n, 3), from the values (f, n) and gradients (f, n, 3) of fields.",
             py::arg("points"), py::arg("values"), py::arg("gradients"), py::arg("threads"));
}

}  // namespace neuralsdf

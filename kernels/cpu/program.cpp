#include "cpu/program.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

namespace neuralsdf {
namespace {

Activation activation_named(const std::string& name) {
    static const char* const names[] = {"relu", "sine", "softplus", "silu", "elu", "tanh"};
    for (int i = 0; i < 6; ++i)
        if (name == names[i]) return static_cast<Activation>(i);
    throw py::value_error("unknown activation " + name);
}

Output output_named(const std::string& name) {
    if (name == "tanh") return Output::tanh;
    if (name == "linear") return Output::linear;
    throw py::value_error("unknown output " + name);
}

const float* checked_vectors(const py::array& vectors, const char* name, std::int64_t count) {
    const float* data = floats(vectors, name, 2);
    if (vectors.shape(0) != count || vectors.shape(1) != 3)
        throw py::value_error(std::string(name) + " must have the shape (n, 3), one for each ray");
    return data;
}

Rays checked_rays(const py::array& begin, const py::array& directions, const py::array& ends) {
    const float* data = floats(ends, "ends", 1);
    const std::int64_t count = ends.shape(0);
    const Rays rays{checked_vectors(begin, "begin", count), checked_vectors(directions, "directions", count), data};
    require(all_finite(rays.begin, 3 * count), "begin must be finite");
    require(all_finite(rays.directions, 3 * count), "directions must be finite");
    // Of a ray that misses the ball the end is -infinity.
    require(std::all_of(data, data + count, [](float t) { return t < std::numeric_limits<float>::infinity(); }),
            "ends must be less than infinity");
    return rays;
}

Placement checked_placement(const py::array& matrix, double scale) {
    const double* m = doubles(matrix, "matrix", 2);
    require(matrix.shape(0) == 4 && matrix.shape(1) == 4, "matrix must have the shape (4, 4)");
    require(all_finite(m, 16), "matrix must be finite");
    require(scale > 0 && std::isfinite(scale), "scale must be positive");
    Placement placement{{}, {m[3], m[7], m[11]}, scale};
    for (int i = 0; i < 9; ++i) placement.rotation[i] = m[i / 3 * 4 + i % 3] / scale;
    return placement;
}

bool is_step_count(int steps) { return 1 <= steps && steps <= max_ray_steps; }
bool is_positive(float number) { return number > 0 && std::isfinite(number); }
bool is_not_negative(float number) { return number >= 0 && std::isfinite(number); }

py::array_t<bool> all_false(std::int64_t count) {
    py::array_t<bool> mask(count);
    std::fill_n(mask.mutable_data(), count, false);
    return mask;
}

}  // namespace

const float* checked_points(const py::array& points) {
    const float* data = floats(points, "points", 2);
    if (points.shape(1) != 3) throw py::value_error("points must have the shape (n, 3)");
    return data;
}

std::unique_ptr<Layout> checked_layout(const Kernel& kernel, const py::array& weights, const std::vector<int>& hidden,
                                       const std::string& activation, const std::string& output, int dimensions) {
    if (hidden.empty() || hidden.size() > max_layers) throw py::value_error("1 to 256 hidden layers are possible");
    std::int64_t expected = 0, inputs = 3;
    for (const int width : hidden) {
        if (width < 1 || width > max_width) throw py::value_error("a hidden layer is 1 to 8192 wide");
        expected += (inputs + 1) * width;
        inputs = width;
    }
    expected += inputs + 1;
    if (expected > max_weights) throw py::value_error("the network has too many weights");
    floats(weights, "weights", dimensions);
    const std::int64_t given = weights.shape(dimensions - 1);
    if (given != expected)
        throw py::value_error("the network has " + std::to_string(expected) + " weights, not " + std::to_string(given));
    auto layout = std::unique_ptr<Layout>(new Layout);  // not zeroed: it has room for 256 layers
    make_layout(*layout, hidden.data(), static_cast<int>(hidden.size()), activation_named(activation),
                output_named(output), kernel.lanes, kernel.tiles);
    return layout;
}

Buffer packed_weights(const Layout& layout, const py::array& weights, bool both_ways) {
    Buffer packed = make_buffer(layout.packed_size);
    pack(layout, static_cast<const float*>(weights.data()), packed.get(), both_ways);
    return packed;
}

void pack_tiles(const Kernel& kernel, const Layout& layout, int l, float* packed) {
    if (layout.tiled && 0 < l && l < layout.depth) kernel.tiles->pack_layer(layout, l, packed);
}

NetworkProgram::NetworkProgram(const Kernel& kernel, const py::array& weights, const std::vector<int>& hidden,
                               const std::string& activation, const std::string& output, bool by_tiles)
    : Program(kernel),
      layout_(checked_layout(kernel, weights, hidden, activation, output)),
      packed_(packed_weights(*layout_, weights, true)),
      by_tiles_(by_tiles && layout_->tiled) {
    for (int l = 1; l < layout_->depth && by_tiles_; ++l) pack_tiles(kernel, *layout_, l, packed_.get());
}

py::array_t<float> Program::evaluate(const py::array& points, int threads) const {
    const float* x = checked_points(points);
    const std::int64_t n = points.shape(0);
    py::array_t<float> values(n);
    float* y = values.mutable_data();
    run_blocks(n, batch(), threads, evaluate_size(),
               [&](std::int64_t at, int count, float* workspace, const Stopped& stopped) {
        evaluate_block(x + 3 * at, count, y + at, workspace, stopped);
    });
    return values;
}

py::tuple Program::distance(const py::array& points, const py::array& matrix, double scale, int threads) const {
    const double* x = doubles(points, "points", 2);
    require(points.shape(1) == 3, "points must have the shape (n, 3)");
    const Placement placement = checked_placement(matrix, scale);
    const std::int64_t n = points.shape(0);
    py::array_t<double> distances(n);
    py::array_t<bool> outside(n);
    double* d = distances.mutable_data();
    bool* beyond = outside.mutable_data();
    const std::size_t room = whole_lines((batch() + round_points - 1) / round_points * round_points);
    const bool to_ball = in_ball();
    run_blocks(n, batch(), threads, 5 * room + evaluate_size(),
               [&](std::int64_t at, int count, float* workspace, const Stopped& stopped) {
        float *local = workspace, *excess = local + 3 * room, *values = excess + room;
        kernel_.placement.enter(placement, x + 3 * at, count, to_ball, local, excess);
        evaluate_block(local, count, values, values + room, stopped);
        kernel_.placement.leave(placement, values, excess, count, d + at, beyond + at);
    });
    return py::make_tuple(distances, outside);
}

py::tuple Program::evaluate_with_gradient(const py::array& points, int threads) const {
    const float* x = checked_points(points);
    const std::int64_t n = points.shape(0);
    py::array_t<float> values(n);
    py::array_t<float> gradients(std::vector<py::ssize_t>{n, 3});
    float* y = values.mutable_data();
    float* g = gradients.mutable_data();
    run_blocks(n, batch(), threads, gradient_size(),
               [&](std::int64_t at, int count, float* workspace, const Stopped& stopped) {
        gradient_block(x + 3 * at, count, y + at, g + 3 * at, workspace, stopped);
    });
    return py::make_tuple(values, gradients);
}

template <class March>
std::int64_t Program::march_rays(std::int64_t count, float factor, int threads, const March& march) const {
    const std::int64_t tasks = (count + task_rays - 1) / task_rays;
    std::vector<std::int64_t> evaluations(tasks);
    run_without_gil(tasks, threads, evaluate_size(),
                    [&](float* workspace, std::int64_t index, const Stopped& stopped) {
        const std::int64_t first = index * task_rays;
        const auto evaluate = [&](const float* points, int n, float* values) {
            evaluate_block(points, n, values, workspace, stopped);
            for (int i = 0; i < n; ++i) values[i] *= factor;
        };
        evaluations[index] = march(first, std::min(first + task_rays, count), batch(), evaluate, stopped);
    });
    return std::accumulate(evaluations.begin(), evaluations.end(), std::int64_t(0));
}

py::tuple Program::trace(const py::array& begin, const py::array& directions, const py::array& ends,
                         const py::array& at_ball, const py::array& steps, float max_level, float touch_depth,
                         int max_steps, float root_tolerance, int root_steps, int threads) const {
    const Rays rays = checked_rays(begin, directions, ends);
    const std::int64_t n = ends.shape(0);
    const bool* on_ball = checked_data<bool>(at_ball, "at_ball", "bool", 1);
    if (at_ball.shape(0) != n) throw py::value_error("at_ball must have the shape (n,), one for each ray");
    const float* table = floats(steps, "steps", 1);
    require(2 <= steps.shape(0) && steps.shape(0) <= 1 << 24, "steps must have 2 to 2^24 levels");
    const int levels = static_cast<int>(steps.shape(0));
    require(std::all_of(table, table + levels, is_not_negative), "steps must be finite and not negative");
    // A level is found by this quotient, too.
    require(is_positive(max_level) && is_positive((levels - 1) / max_level), "max_level must be positive, and not tiny");
    require(is_not_negative(touch_depth), "touch_depth must be finite and not negative");
    require(is_not_negative(root_tolerance), "root_tolerance must be finite and not negative");
    require(is_step_count(max_steps), "max_steps must be 1 to 65535");
    require(is_step_count(root_steps), "root_steps must be 1 to 65535");
    py::array_t<bool> hit = all_false(n), unresolved = all_false(n), buried = all_false(n);
    py::array_t<float> t(n);
    std::fill_n(t.mutable_data(), n, 0.0f);
    const bool even = !(table[0] < table[levels - 1]);
    const Tracing tracing{on_ball, table, levels, even, max_level, touch_depth, root_tolerance, max_steps, root_steps,
                          hit.mutable_data(), t.mutable_data(), unresolved.mutable_data(), buried.mutable_data()};
    const std::int64_t evaluations = march_rays(n, 1, threads, [&](auto first, auto last, const auto&... how) {
        return neuralsdf::trace(rays, tracing, first, last, how...);
    });
    return py::make_tuple(hit, t, unresolved, buried, evaluations);
}

py::tuple Program::soft_shadow(const py::array& begin, const py::array& directions, const py::array& ends,
                               float first, float least_step, float greatest_step, int steps, float sharpness,
                               float dark, int threads) const {
    const Rays rays = checked_rays(begin, directions, ends);
    const std::int64_t n = ends.shape(0);
    require(is_positive(first), "first must be positive");
    require(is_positive(least_step) && is_positive(greatest_step) && least_step <= greatest_step,
            "least_step and greatest_step must be positive, in this order");
    require(is_step_count(steps), "steps must be 1 to 65535");
    require(is_positive(sharpness), "sharpness must be positive");
    require(std::isfinite(dark), "dark must be finite");
    py::array_t<float> share(n);
    std::fill_n(share.mutable_data(), n, 1.0f);
    const SoftShadow cone{first, least_step, greatest_step, steps, sharpness, dark, share.mutable_data()};
    const std::int64_t evaluations = march_rays(n, 1 / steepest(), threads, [&](auto from, auto last, const auto&... how) {
        return neuralsdf::soft_shadow(rays, cone, from, last, how...);
    });
    return py::make_tuple(share, evaluations);
}

py::array_t<float> evaluate_many(const Kernel& kernel, const py::array& weights, const std::vector<int>& hidden,
                                 const std::string& activation, const std::string& output, const py::array& points,
                                 int threads) {
    constexpr std::int64_t a_task = 4 * task_points;  // packing the weights takes about as long as 30 points
    const std::unique_ptr<Layout> layout = checked_layout(kernel, weights, hidden, activation, output, 2);
    const float *w = static_cast<const float*>(weights.data()), *x = checked_points(points);
    const std::int64_t n = weights.shape(0), m = points.shape(0), parts = (m + a_task - 1) / a_task;
    py::array_t<float> values(std::vector<py::ssize_t>{n, m});
    float* y = values.mutable_data();
    const std::size_t packed = whole_lines(layout->gradient_size);  // as the packed weights of one way
    run_without_gil(n * parts, threads, packed + evaluate_workspace(*layout),
                    [&](float* workspace, std::int64_t index, const auto& stopped) {
        const std::int64_t shape = index / parts, first = index % parts * a_task;
        pack(*layout, w + shape * layout->flat_size, workspace, false);
        for_blocks(first, std::min(first + a_task, m), stopped, [&](std::int64_t at, int count) {
            kernel.evaluate(*layout, workspace, x + 3 * at, count, y + shape * m + at, workspace + packed);
        });
    });
    return values;
}

void bind_program(py::module_& module) {
    py::class_<Program, std::shared_ptr<Program>>(module, "Program", "What gives values at points.")
        .def("evaluate", &Program::evaluate, "Values (n,) at points (n, 3).", py::arg("points"), py::arg("threads"))
        .def("evaluate_with_gradient", &Program::evaluate_with_gradient,
             "Values (n,) and gradients (n, 3) at points (n, 3).", py::arg("points"), py::arg("threads"))
        .def("distance", &Program::distance,
             "Values (n,) in mesh units at points (n, 3) of mesh space; which are outside the ball (n,).",
             py::arg("points"), py::arg("matrix"), py::arg("scale"), py::arg("threads"))
        .def("trace", &Program::trace, "The first surface along rays (n,): hit, t, unresolved, buried, evaluations.",
             py::arg("begin"), py::arg("directions"), py::arg("ends"), py::arg("at_ball"), py::arg("steps"),
             py::arg("max_level"), py::arg("touch_depth"), py::arg("max_steps"), py::arg("root_tolerance"),
             py::arg("root_steps"), py::arg("threads"))
        .def("soft_shadow", &Program::soft_shadow, "Share of a light (n,) at the beginnings of rays; evaluations.",
             py::arg("begin"), py::arg("directions"), py::arg("ends"), py::arg("first"), py::arg("least_step"),
             py::arg("greatest_step"), py::arg("steps"), py::arg("sharpness"), py::arg("dark"), py::arg("threads"));
    py::class_<NetworkProgram, Program, std::shared_ptr<NetworkProgram>>(module, "NetworkProgram",
                                                                         "What `Core.compile` makes of a network.")
        .def_property_readonly("by_tiles", &NetworkProgram::by_tiles, "Whether tiles evaluate it.");
}

}  // namespace neuralsdf

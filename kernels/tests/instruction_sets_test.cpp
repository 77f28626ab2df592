#include <cmath>
#include <set>
#include <stdexcept>
#include <string>

#include "cpu/instruction_sets.h"
#include "cpu/mlp/network_program.h"
#include "doctest/doctest.h"
#include "random.h"

using namespace neuralsdf;

namespace {

double activated(Activation activation, double z) {
    switch (activation) {
        case Activation::relu: return z > 0 ? z : 0;
        case Activation::sine: return std::sin(30 * z);
        case Activation::softplus: return std::log1p(std::exp(-100 * std::abs(z))) / 100 + (z > 0 ? z : 0);
        case Activation::silu: return z / (1 + std::exp(-z));
        case Activation::elu: return z > 0 ? z : std::expm1(z);
        case Activation::tanh: return std::tanh(z);
    }
    return NAN;
}

// Evaluates the network in double precision, directly from its definition.
double reference(const Architecture& a, const std::vector<float>& weights, std::vector<double> x) {
    const float* w = weights.data();
    for (std::size_t l = 0; l <= a.hidden.size(); ++l) {
        const bool last = l == a.hidden.size();
        const std::size_t inputs = x.size(), outputs = last ? 1 : static_cast<std::size_t>(a.hidden[l]);
        std::vector<double> z(outputs);
        for (std::size_t j = 0; j < outputs; ++j) {
            z[j] = w[inputs * outputs + j];
            for (std::size_t i = 0; i < inputs; ++i) z[j] += x[i] * w[i * outputs + j];
            if (!last) z[j] = activated(a.activation, z[j]);
        }
        w += (inputs + 1) * outputs;
        x = z;
    }
    return a.output == Output::tanh ? std::tanh(x[0]) : x[0];
}

std::size_t weight_count(const Architecture& a) {
    std::size_t count = 0, inputs = 3;
    for (const int width : a.hidden)
        count += (inputs + 1) * static_cast<std::size_t>(width), inputs = static_cast<std::size_t>(width);
    return count + inputs + 1;
}

const std::vector<std::vector<int>> shapes = {{1}, {32, 32}, {17, 5, 64}, {16, 33}};
constexpr Activation activations[] = {Activation::relu, Activation::sine, Activation::softplus,
                                      Activation::silu, Activation::elu,  Activation::tanh};

}  // namespace

TEST_SUITE_BEGIN("instruction_sets");

TEST_CASE("the supported sets have different names, the widest vectors first and the baseline last") {
    const std::vector<std::string> names = supported_isas();
    REQUIRE_FALSE(names.empty());
    CHECK(names.back() == "baseline");
    CHECK(std::set<std::string>(names.begin(), names.end()).size() == names.size());
    int lanes = 1 << 10;
    for (const std::string& name : names) {
        const Kernel& kernel = kernel_named(name);
        CHECK(kernel.name == name);
        CHECK(kernel.lanes <= lanes);
        CHECK((kernel.lanes & (kernel.lanes - 1)) == 0);
        CHECK(&kernel == &kernel_named(name));
        CHECK((kernel.tiles != nullptr) == (name == "amx"));
        lanes = kernel.lanes;
    }
}

TEST_CASE("unknown names are rejected") {
    for (const char* name : {"", "sse9", "AVX2", "baseline "})
        CHECK_THROWS_AS(kernel_named(name), std::invalid_argument);
}

TEST_CASE("every instruction set agrees with the definition of the network") {
    Random random(1);
    const int n = 131;  // not a multiple of the block or vector size
    const std::vector<float> points = random.uniform<float>(3 * n, -1, 1);
    for (const std::string& isa : supported_isas())
        for (const auto& hidden : shapes)
            for (const Activation activation : activations)
                for (const Output output : {Output::tanh, Output::linear}) {
                    const Architecture a{hidden, activation, output};
                    // sin(30 z) amplifies float32 rounding by 30 in each layer.
                    const double range = activation == Activation::sine ? 0.03 : 0.4;
                    const std::vector<float> weights = random.uniform<float>(weight_count(a), -range, range);
                    const NetworkProgram network(kernel_named(isa), a, weights.data(),
                                                 static_cast<std::int64_t>(weights.size()));
                    std::vector<float> values(n), again(n), gradients(3 * n);
                    network.evaluate(points.data(), n, values.data(), Workers{2, {}});
                    network.evaluate_with_gradient(points.data(), n, again.data(), gradients.data(), Workers{2, {}});
                    double error = 0, slope_error = 0;
                    int kinks = 0;
                    for (std::size_t i = 0; i < n; ++i) {
                        std::vector<double> p(points.begin() + 3 * static_cast<int>(i),
                                              points.begin() + 3 * static_cast<int>(i) + 3);
                        const double f = reference(a, weights, p);
                        error = std::max({error, std::abs(values[i] - f), std::abs(again[i] - f)});
                        for (std::size_t k = 0; k < 3; ++k) {
                            const double h = 1e-6, at = p[k];
                            p[k] = at + h;
                            const double above = reference(a, weights, p);
                            p[k] = at - h;
                            const double below = reference(a, weights, p);
                            p[k] = at;
                            if (std::abs(above - 2 * f + below) > 1e-9)
                                ++kinks;  // a kink of a ReLU within h
                            else
                                slope_error =
                                    std::max(slope_error, std::abs(gradients[3 * i + k] - (above - below) / (2 * h)));
                        }
                    }
                    INFO(isa, " ", static_cast<int>(activation), " depth ", hidden.size());
                    CHECK(error < 3e-6);
                    CHECK(slope_error < 3e-5);
                    CHECK(kinks <= 5);
                }
}

TEST_CASE("values are bitwise identical for any number of threads") {
    Random random(2);
    const Architecture a{{32, 32, 32}, Activation::relu, Output::tanh};
    const std::vector<float> weights = random.uniform<float>(weight_count(a), -0.4, 0.4);
    const std::int64_t n = 5 * task_points + 7;
    const std::vector<float> points = random.uniform<float>(static_cast<std::size_t>(3 * n), -1, 1);
    for (const std::string& isa : supported_isas()) {
        const NetworkProgram network(kernel_named(isa), a, weights.data(), static_cast<std::int64_t>(weights.size()));
        std::vector<float> one(static_cast<std::size_t>(n)), many(one);
        network.evaluate(points.data(), n, one.data(), Workers{1, {}});
        network.evaluate(points.data(), n, many.data(), Workers{4, {}});
        CHECK(one == many);
    }
}

TEST_CASE("weights that do not match the architecture, and architectures out of bounds, are rejected") {
    const Kernel& kernel = kernel_named("baseline");
    const std::vector<float> weights(1000);
    const auto make = [&](std::vector<int> hidden, std::int64_t count) {
        NetworkProgram(kernel, {std::move(hidden), Activation::relu, Output::tanh}, weights.data(), count);
    };
    CHECK_NOTHROW(make({16}, 16 * 4 + 17));
    CHECK_THROWS_AS(make({16}, 16 * 4 + 16), std::invalid_argument);
    CHECK_THROWS_AS(make({16}, -1), std::invalid_argument);
    CHECK_THROWS_AS(make({}, 4), std::invalid_argument);
    CHECK_THROWS_AS(make({0}, 4), std::invalid_argument);
    CHECK_THROWS_AS(make({max_width + 1}, 4), std::invalid_argument);
    CHECK_THROWS_AS(make(std::vector<int>(max_layers + 1, 1), 4), std::invalid_argument);
    CHECK_THROWS_AS(activation_named("gelu"), std::invalid_argument);
    CHECK_THROWS_AS(output_named("relu"), std::invalid_argument);
}

TEST_SUITE_END();

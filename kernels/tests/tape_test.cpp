#include <cmath>
#include <memory>
#include <stdexcept>

#include "cpu/instruction_sets.h"
#include "cpu/tape/tape_program.h"
#include "doctest/doctest.h"
#include "random.h"

using namespace neuralsdf;

namespace {

using Leaves = std::vector<std::shared_ptr<const NetworkProgram>>;

// Builds a tape; the caller assigns registers.
struct Tape {
    std::vector<std::int32_t> code;
    std::vector<double> parameters;
    int points = 1, values = 1;

    void add(Op op, int out, int a, int b, const std::vector<double>& numbers) {
        code.insert(code.end(),
                    {static_cast<std::int32_t>(op), out, a, b, static_cast<std::int32_t>(parameters.size())});
        parameters.insert(parameters.end(), numbers.begin(), numbers.end());
    }
    TapeProgram program(const std::string& isa = "baseline", Leaves leaves = {}) const {
        return TapeProgram(kernel_named(isa), code, parameters, std::move(leaves), points, values, 1);
    }
    bool is_refused(Leaves leaves = {}) const {
        try {
            program("baseline", std::move(leaves));
        } catch (const std::invalid_argument&) {
            return true;
        }
        return false;
    }
};

// The frame of a solid at a position, and its parameters.
std::vector<double> solid(double x, std::vector<double> numbers) {
    std::vector<double> all = {1, 0, 0, 0, 1, 0, 0, 0, 1, -x, 0, 0, 1};
    all.insert(all.end(), numbers.begin(), numbers.end());
    return all;
}

// The union of two spheres, of radius 0.5 at x = 0 and 0.25 at x = 1.
Tape two_balls() {
    Tape tape;
    tape.values = 2;
    tape.add(Op::sphere, 0, 0, 0, solid(0, {0.5}));
    tape.add(Op::sphere, 1, 0, 0, solid(1, {0.25}));
    tape.add(Op::unite, 0, 0, 1, {0});
    return tape;
}

std::shared_ptr<const NetworkProgram> network() {
    const std::vector<float> weights(4 * 8 + 9, 0.1f);
    return std::make_shared<NetworkProgram>(kernel_named("baseline"), Architecture{{8}, Activation::relu, Output::tanh},
                                            weights.data(), static_cast<std::int64_t>(weights.size()));
}

}  // namespace

TEST_SUITE_BEGIN("tape");

TEST_CASE("the union of two spheres is the minimum of their distances, with its gradient") {
    Random random(11);
    constexpr std::size_t n = 500;
    const std::vector<float> points = random.uniform<float>(3 * n, -2, 2);
    for (const std::string& isa : supported_isas()) {
        std::vector<float> values(n), again(n), gradients(3 * n);
        const TapeProgram program = two_balls().program(isa);
        program.evaluate(points.data(), n, values.data(), Workers{2, {}});
        program.evaluate_with_gradient(points.data(), n, again.data(), gradients.data(), Workers{});
        for (std::size_t i = 0; i < n; ++i) {
            const double x = points[3 * i], y = points[3 * i + 1], z = points[3 * i + 2];
            const double a = std::sqrt(x * x + y * y + z * z), b = std::sqrt((x - 1) * (x - 1) + y * y + z * z);
            const double expected = std::min(a - 0.5, b - 0.25);
            CHECK(std::abs(values[i] - expected) < 1e-6);
            CHECK(std::abs(again[i] - expected) < 1e-6);
            if (std::abs(a - 0.5 - b + 0.25) < 1e-4) continue;  // near the crease
            const double slope = a - 0.5 < b - 0.25 ? x / a : (x - 1) / b;
            CHECK(std::abs(gradients[3 * i] - slope) < 1e-4);
        }
    }
}

TEST_CASE("tapes that read unwritten or nonexistent registers are rejected") {
    REQUIRE_FALSE(two_balls().is_refused());
    for (const int column : {1, 2, 3})  // out, a, b
        for (const int wrong : {-1, 2, 1 << 30, -(1 << 30)}) {
            Tape tape = two_balls();
            tape.code[static_cast<std::size_t>(2 * 5 + column)] = wrong;  // the union
            CHECK(tape.is_refused());
        }
    Tape unwritten = two_balls();
    unwritten.code[5 + 1] = 0;  // the second sphere overwrites the first
    CHECK(unwritten.is_refused());
    Tape silent = two_balls();
    silent.code[1] = silent.code[11] = 1, silent.code[12] = 1;  // the result register is never written
    CHECK(silent.is_refused());
    Tape point = two_balls();
    point.code[2] = 1;  // a point register that is never written
    CHECK(point.is_refused());
}

TEST_CASE("parameters, registers, operations and leaves must exist") {
    for (const int wrong : {-1, 16, 1 << 30}) {  // the second sphere needs 14 of 29 parameters
        Tape tape = two_balls();
        tape.code[5 + 4] = wrong;
        CHECK(tape.is_refused());
    }
    Tape shorter = two_balls();
    shorter.parameters.pop_back();
    CHECK(shorter.is_refused());
    for (const int wrong : {-1, 9, 31, 100, 1 << 30}) {
        Tape tape = two_balls();
        tape.code[0] = wrong;
        CHECK(tape.is_refused());
    }
    for (const int wrong : {0, -1, 4, 1 << 30}) {
        Tape tape = two_balls();
        tape.values = wrong;
        CHECK(tape.is_refused());
        tape = two_balls();
        tape.points = wrong == 4 ? 5 : wrong;
        CHECK(tape.is_refused());
    }
    Tape ragged = two_balls();
    ragged.code.pop_back();
    CHECK(ragged.is_refused());
    CHECK(Tape{}.is_refused());
    for (const double leaf : {-1.0, 1.0, 0.5, 1e300, double(NAN)}) {
        Tape tape;
        tape.add(Op::field, 0, 0, 0, solid(0, {leaf}));
        CHECK(tape.is_refused({network()}));
    }
    Tape good;
    good.add(Op::field, 0, 0, 0, solid(0, {0}));
    CHECK_FALSE(good.is_refused({network()}));
    CHECK(good.is_refused());
}

TEST_CASE("random numbers are rejected, or give a tape that evaluates within its memory") {
    // The sanitizers report reads outside of it.
    Random random(12);
    constexpr int operations[] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  32, 33, 40, 41,
                                  42, 43, 50, 51, 52, 53, 60, 61, 62, 63, 64, 65};
    const std::vector<float> points = random.uniform<float>(3 * 5, -1, 1);
    const Leaves leaves = {network(), nullptr};
    int accepted = 0;
    for (int trial = 0; trial < 20000; ++trial) {
        Tape tape;
        tape.points = 1 + random.below(3), tape.values = 1 + random.below(3);
        const int size = 1 + random.below(6);
        for (int i = 0; i < size; ++i) {
            std::vector<double> numbers = solid(0, random.uniform<double>(16, 0.1, 0.9));
            const int op = operations[random.below(i < 2 ? 9 : 25)];
            if (op == 32) numbers[13] = random.below(3);
            tape.add(static_cast<Op>(op), random.below(i % 2 + 2), random.below(2), random.below(3), numbers);
        }
        try {
            const TapeProgram program = tape.program("baseline", leaves);
            float values[5], gradients[15];
            if (program.field_count() == 0) {
                program.evaluate_with_gradient(points.data(), 5, values, gradients, Workers{});
            } else {
                CHECK_THROWS_AS(program.evaluate(points.data(), 5, values, Workers{}), std::invalid_argument);
                const auto fields = static_cast<std::size_t>(program.field_count());
                std::vector<float> places(fields * 15), known(fields * 5, 0.3f), slopes(fields * 15, 0.5f);
                program.field_points(points.data(), 5, places.data(), Workers{});
                program.evaluate_fields_with_gradient(points.data(), 5, known.data(), slopes.data(), values, gradients,
                                                      Workers{});
            }
            ++accepted;
        } catch (const std::invalid_argument&) {
        }
    }
    CHECK(accepted > 500);
    CHECK(accepted < 19500);
}

TEST_SUITE_END();

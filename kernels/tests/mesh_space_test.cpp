#include "cpu/mesh_space.h"

#include <cmath>
#include <limits>
#include <memory>
#include <stdexcept>

#include "cpu/instruction_sets.h"
#include "cpu/program.h"
#include "doctest/doctest.h"
#include "random.h"

using namespace neuralsdf;

namespace {

// A row-major matrix (4, 4): a rotation about an axis by an angle, times `scale`, and a translation.
std::vector<double> similarity(Random& random, double scale) {
    double u[3], length = 0;
    for (double& x : u) x = random.uniform(-1, 1), length += x * x;
    for (double& x : u) x /= std::sqrt(length);
    const double angle = random.uniform(-3, 3), c = std::cos(angle), s = std::sin(angle);
    std::vector<double> m(16, 0.0);
    for (int i = 0; i < 3; ++i) {
        for (int j = 0; j < 3; ++j)
            m[static_cast<std::size_t>(4 * i + j)] = scale * (u[i] * u[j] * (1 - c) + (i == j ? c : 0));
        m[static_cast<std::size_t>(4 * i + (i + 1) % 3)] -= scale * s * u[(i + 2) % 3];
        m[static_cast<std::size_t>(4 * i + (i + 2) % 3)] += scale * s * u[(i + 1) % 3];
        m[static_cast<std::size_t>(4 * i + 3)] = random.uniform(-10, 10);
    }
    m[15] = 1;
    return m;
}

}  // namespace

TEST_SUITE_BEGIN("mesh_space");

TEST_CASE("mapping to mesh space and back is the identity; points outside the ball are moved to its surface") {
    Random random(4);
    for (const std::string& isa : supported_isas()) {
        const PlacementKernel& kernel = kernel_named(isa).placement;
        for (const double scale : {1e-6, 1.0, 350.0}) {
            const std::vector<double> m = similarity(random, scale);
            const Placement placement = placement_by(m.data(), scale);
            for (const int n : {1, round_points - 1, round_points, 3 * round_points + 5}) {
                const auto room = static_cast<std::size_t>(n + round_points);
                std::vector<double> y = random.uniform<double>(3 * room, -1.5, 1.5), x(3 * room);
                for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i)
                    for (std::size_t k = 0; k < 3; ++k) {
                        x[3 * i + k] = m[4 * k + 3];
                        for (std::size_t j = 0; j < 3; ++j) x[3 * i + k] += m[4 * k + j] * y[3 * i + j];
                    }
                std::vector<float> local(3 * room), excess(room), whole(3 * room), none(room);
                kernel.enter(placement, x.data(), n, true, local.data(), excess.data());
                kernel.enter(placement, x.data(), n, false, whole.data(), none.data());
                // For small scales the centre, ten units away, costs precision.
                const double tolerance = 2e-7 + 1e-14 / scale;
                for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) {
                    double radius = 0;
                    for (std::size_t k = 0; k < 3; ++k) radius += y[3 * i + k] * y[3 * i + k];
                    radius = std::sqrt(radius);
                    const double beyond = radius > 1 ? radius - 1 : 0;
                    CHECK(std::abs(excess[i] - beyond) < 3e-7 + tolerance);
                    CHECK(none[i] == 0);
                    for (std::size_t k = 0; k < 3; ++k) {
                        CHECK(std::abs(whole[3 * i + k] - y[3 * i + k]) < tolerance);
                        CHECK(std::abs(local[3 * i + k] - y[3 * i + k] / (1 + beyond)) < 2e-7 + tolerance);
                    }
                }
            }
        }
    }
}

TEST_CASE("points that are not finite or too far away become NaN, and others are not affected") {
    const double infinity = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
    const double identity[16] = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1};
    const Placement placement = placement_by(identity, 1);
    for (const std::string& isa : supported_isas())
        for (const double bad : {nan, infinity, -infinity, 1e18, -1e300})
            for (int axis = 0; axis < 3; ++axis) {
                std::vector<double> x(3 * 2, 0.25);
                x[static_cast<std::size_t>(axis)] = bad;
                std::vector<float> local(3 * round_points), excess(round_points);
                kernel_named(isa).placement.enter(placement, x.data(), 2, true, local.data(), excess.data());
                for (std::size_t k = 0; k < 3; ++k) {
                    CHECK(std::isnan(local[k]));
                    CHECK(local[3 + k] == 0.25f);
                }
                CHECK(std::isnan(excess[0]));
                CHECK(excess[1] == 0);
            }
}

TEST_CASE("distances are scaled values inside the ball, and extended outside") {
    const double identity[16] = {2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1};
    const Placement placement = placement_by(identity, 2);
    const float values[] = {0.5f, -0.5f, 0.3f, -0.3f}, excess[] = {0, 0, 0.4f, 0.4f};
    for (const std::string& isa : supported_isas()) {
        double distances[4];
        bool outside[4];
        kernel_named(isa).placement.leave(placement, values, excess, 4, distances, outside);
        CHECK(distances[0] == doctest::Approx(1.0));
        CHECK(distances[1] == doctest::Approx(-1.0));
        CHECK(distances[2] == doctest::Approx(1.0));  // 2 sqrt(0.3^2 + 0.4^2)
        CHECK(distances[3] == doctest::Approx(0.8));
        for (int i = 0; i < 4; ++i) CHECK(outside[i] == (i >= 2));
    }
}

TEST_CASE("a matrix that is not finite, or a scale that is not positive, is rejected") {
    double m[16] = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1};
    for (const double scale : {0.0, -1.0, double(NAN), double(INFINITY)})
        CHECK_THROWS_AS(placement_by(m, scale), std::invalid_argument);
    for (double& entry : m) {
        const double kept = entry;
        entry = NAN;
        CHECK_THROWS_AS(placement_by(m, 1), std::invalid_argument);
        entry = kept;
    }
}

TEST_SUITE_END();

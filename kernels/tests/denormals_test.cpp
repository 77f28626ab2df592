#include "cpu/denormals.h"

#include <thread>

#include "doctest/doctest.h"

using neuralsdf::WithoutDenormals;

namespace {

// Volatile, so that the compiler does not evaluate them at compile time.
float product() {
    volatile float tiny = 1e-30f, small = 1e-10f;
    return tiny * small;
}
float operand() {
    volatile float denormal = 1e-40f, large = 1e38f;
    return denormal * large;
}

}  // namespace

TEST_SUITE_BEGIN("denormals");

#if defined(__SSE2__) || defined(__aarch64__)

TEST_CASE("denormal results and operands are zero in the scope, and only there") {
    REQUIRE(product() > 0);
    REQUIRE(operand() > 0);
    {
        const WithoutDenormals outer;
        CHECK(product() == 0);
        CHECK(operand() == 0);
        {
            const WithoutDenormals inner;
            CHECK(product() == 0);
        }
        CHECK(product() == 0);  // the inner scope restores the previous mode
    }
    CHECK(product() > 0);
    CHECK(operand() > 0);
}

TEST_CASE("only the thread that opens the scope is affected") {
    const WithoutDenormals here;
    float elsewhere = 0;
    std::thread started_inside([&] {
        const WithoutDenormals there;
        elsewhere = product();
    });
    started_inside.join();
    CHECK(elsewhere == 0);
    CHECK(product() == 0);  // the end of the other thread does not change the mode here
}

#endif

TEST_SUITE_END();

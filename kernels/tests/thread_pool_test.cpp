#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "cpu/parallel_for.h"
#include "doctest/doctest.h"

using namespace neuralsdf;

namespace {

// Whether each of `count` tasks ran exactly once, with the given number of threads.
std::vector<int> runs(std::int64_t count, int threads) {
    std::vector<std::atomic<int>> seen(static_cast<std::size_t>(count));
    run_tasks(count, {threads, {}},
              [&](int, std::int64_t index, const auto&) { ++seen[static_cast<std::size_t>(index)]; });
    return {seen.begin(), seen.end()};
}

bool each_once(std::int64_t count, int threads) {
    return runs(count, threads) == std::vector<int>(static_cast<std::size_t>(count), 1);
}

}  // namespace

TEST_SUITE_BEGIN("thread_pool");

TEST_CASE("every task runs exactly once, for any number of threads") {
    for (const int threads : {-1, 0, 1, 2, 3, 8})
        for (const std::int64_t count : {0, 1, 2, 7, 1000}) CHECK(each_once(count, threads));
}

TEST_CASE("slots are below the number of threads, and are never shared") {
    for (const int threads : {1, 2, 5}) {
        std::vector<std::atomic<bool>> busy(static_cast<std::size_t>(threads));
        std::atomic<bool> shared{false}, beyond{false};
        run_tasks(2000, {threads, {}}, [&](int slot, std::int64_t, const auto&) {
            if (slot < 0 || slot >= threads) {
                beyond = true;
                return;
            }
            if (busy[static_cast<std::size_t>(slot)].exchange(true)) shared = true;
            busy[static_cast<std::size_t>(slot)] = false;
        });
        CHECK_FALSE(beyond);
        CHECK_FALSE(shared);
    }
}

TEST_CASE("an exception of a task reaches the caller after all tasks have ended, and the pool still works") {
    for (const int threads : {1, 2, 4}) {
        std::atomic<int> running{0};
        const auto work = [&](int, std::int64_t index, const auto&) {
            ++running;
            const bool fails = index == 13;
            --running;
            if (fails) throw std::runtime_error("task 13");
        };
        try {
            run_tasks(1000, {threads, {}}, work);
            FAIL("nothing was thrown");
        } catch (const std::runtime_error& error) {
            CHECK(std::string(error.what()) == "task 13");
        }
        CHECK(running == 0);
        CHECK(each_once(100, threads));
    }
}

TEST_CASE("an interruption stops running tasks and throws Interrupted") {
    for (const int threads : {1, 3}) {
        std::atomic<int> polls{0}, running{0};
        const std::thread::id caller = std::this_thread::get_id();
        std::atomic<bool> elsewhere{false};
        const Workers workers{threads, [&] {
            ++polls;
            if (std::this_thread::get_id() != caller) elsewhere = true;
            return true;
        }};
        const auto forever = [&](int, std::int64_t, const auto& stopped) {
            ++running;
            while (!stopped()) std::this_thread::yield();
            --running;
        };
        CHECK_THROWS_AS(run_tasks(threads, workers, forever), Interrupted);
        CHECK(running == 0);
        CHECK(polls == 1);
        CHECK_FALSE(elsewhere);
    }
}

TEST_CASE("concurrent jobs of several threads, and jobs within tasks, complete") {
    std::atomic<bool> complete{true};
    std::vector<std::thread> callers;
    for (int i = 0; i < 4; ++i)
        callers.emplace_back([&] {
            for (int round = 0; round < 50; ++round)
                if (!each_once(64, 3)) complete = false;
        });
    for (std::thread& caller : callers) caller.join();
    run_tasks(8, {2, {}}, [&](int, std::int64_t, const auto&) {
        if (!each_once(16, 2)) complete = false;
    });
    CHECK(complete);
}

TEST_CASE("denormals are flushed in tasks, but not in the caller afterwards") {
    volatile float tiny = 1e-30f;
    std::atomic<bool> flushed{true};
    run_tasks(100, {2, {}}, [&](int, std::int64_t, const auto&) {
        if (tiny * 1e-10f != 0) flushed = false;
    });
#if defined(__SSE2__) || defined(__aarch64__)
    CHECK(flushed);
#endif
    CHECK(tiny * 1e-10f > 0);
}

TEST_CASE("a forked child has its own pool") {
    REQUIRE(each_once(100, 2));  // starts helpers in the parent, which the child does not inherit
    const pid_t child = fork();
    if (child == 0) _exit(each_once(100, 2) ? 0 : 1);
    int status = -1;
    REQUIRE(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0);
    CHECK(each_once(100, 2));
}

TEST_SUITE_END();

#include "cpu/thread_pool.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>

#include "cpu/denormals.h"

namespace neuralsdf {

using namespace std::chrono_literals;

bool Job::stopped(int slot) {
    if (slot == 0) {
        const auto now = std::chrono::steady_clock::now();
        if (now - polled_ > 100ms) {
            if (poll_ && poll_()) stopped_ = true;
            polled_ = std::chrono::steady_clock::now();
        }
    }
    return stopped_.load(std::memory_order_relaxed);
}

void Job::work(int slot) {
    const WithoutDenormals fast;  // denormal weights or parameters would be about a hundred times slower
    try {
        for (std::int64_t index; !stopped(slot) && (index = next_.fetch_add(1)) < count_;) task_(slot, index);
    } catch (...) {  // mostly out of memory; other threads may still be working on this job
        fail();
    }
}

// Stores the current exception, if it is the first one, and stops the job.
void Job::fail() {
    const std::lock_guard<std::mutex> lock(failing_);
    if (!failure_) failure_ = std::current_exception();
    stopped_ = true;
}

namespace {

// Time for which a thread spins before it sleeps. Waking a thread takes about as long, and the steps of a fit are jobs
// of a few hundred microseconds.
constexpr auto patience = 50us;

// Spins until `ready` returns true or the time is over; returns whether it became true.
template <class Ready>
bool soon(const Ready& ready) {
    const auto end = std::chrono::steady_clock::now() + patience;
    do {
        for (int i = 0; i < 32; ++i) {
            if (ready()) return true;
#ifdef __x86_64__
            __builtin_ia32_pause();
#endif
        }
    } while (std::chrono::steady_clock::now() < end);
    return false;
}

}  // namespace

class Pool {
  public:
    void run(Job& job, int helpers) {
        const std::unique_lock<std::mutex> alone(busy_, std::try_to_lock);
        if (!alone.owns_lock()) return job.work(0);
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            grow(helpers);
            job_ = &job;
            wanted_ = helpers < size_ ? helpers : size_;
            joined_ = 0;
        }
        helpers == 1 ? wake_.notify_one() : wake_.notify_all();
        job.work(0);
        std::unique_lock<std::mutex> lock(mutex_);
        wanted_ = 0;  // threads that have not woken up yet are not needed
        lock.unlock();
        soon([this] { return active_ == 0; });
        lock.lock();
        while (!done_.wait_for(lock, 100ms, [this] { return active_ == 0; })) {
            lock.unlock();
            job.stopped(0);
            lock.lock();
        }
    }

  private:
    void grow(int helpers) {
        if (size_ >= helpers) return;
        // Helpers block all signals. The threads of the program handle them, in particular the one that handles Ctrl-C.
        sigset_t all, before;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        try {
            for (; size_ < helpers; ++size_) std::thread([this] { help(); }).detach();
        } catch (const std::system_error&) {
            // The system cannot create more threads; continue with the existing ones.
        }
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
    }

    void help() {
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            lock.unlock();
            soon([this] { return wanted_ > 0; });
            lock.lock();
            wake_.wait(lock, [this] { return wanted_ > 0; });
            --wanted_;
            ++active_;
            Job& job = *job_;
            const int slot = ++joined_;
            lock.unlock();
            job.work(slot);
            lock.lock();
            if (--active_ == 0) done_.notify_one();
        }
    }

    std::mutex busy_;   // held for the duration of a job
    std::mutex mutex_;  // guards the members below
    std::condition_variable wake_, done_;
    Job* job_ = nullptr;
    int size_ = 0, joined_ = 0;
    std::atomic<int> wanted_{0}, active_{0};  // also read without the mutex
};

namespace {

// Never destroyed: helpers wait on it until the process ends.
Pool* pool = nullptr;

void renew() { pool = new Pool; }

}  // namespace

bool Job::run(int threads) {
    static const bool ready = (renew(), pthread_atfork(nullptr, nullptr, renew), true);
    static_cast<void>(ready);
    if (threads > 1 && count_ > 1) {
        pool->run(*this, static_cast<int>(std::min<std::int64_t>(threads, count_)) - 1);
    } else {
        work(0);
    }
    if (failure_) std::rethrow_exception(failure_);
    return !stopped_;
}

}  // namespace neuralsdf

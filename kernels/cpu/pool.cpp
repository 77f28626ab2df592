#include "cpu/pool.h"

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
    const WithoutDenormals fast;  // weights, or numbers of a tree, that are denormal would take a hundred times as long
    try {
        for (std::int64_t index; !stopped(slot) && (index = next_.fetch_add(1)) < count_;) task_(slot, index);
    } catch (...) {  // no memory, above all: other threads may still be at work on this job
        fail();
    }
}

// Keeps the exception that is being handled, if it is the first one, and stops the job.
void Job::fail() {
    const std::lock_guard<std::mutex> lock(failing_);
    if (!failure_) failure_ = std::current_exception();
    stopped_ = true;
}

namespace {

// How long a thread looks for what it waits for before it sleeps: waking it would take as long, and the steps of a
// fit are jobs of some hundred microseconds.
constexpr auto patience = 50us;

// Whether `ready` became true within that time.
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
        wanted_ = 0;  // who has not woken by now need not
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
        // Signals are for the program's own threads, above all the one that waits for Ctrl-C.
        sigset_t all, before;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        try {
            for (; size_ < helpers; ++size_) std::thread([this] { help(); }).detach();
        } catch (const std::system_error&) {
            // The system gives no more threads: those there are do the work.
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

    std::mutex busy_;   // held for the length of a job
    std::mutex mutex_;  // guards what follows
    std::condition_variable wake_, done_;
    Job* job_ = nullptr;
    int size_ = 0, joined_ = 0;
    std::atomic<int> wanted_{0}, active_{0};  // read without the mutex, too
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

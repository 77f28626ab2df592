// Random numbers for tests, identical on every machine.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

class Random {
  public:
    explicit Random(std::uint32_t seed) : engine_(seed) {}

    std::uint32_t bits() { return static_cast<std::uint32_t>(engine_()); }
    int below(int end) { return static_cast<int>(bits() % static_cast<std::uint32_t>(end)); }
    double uniform(double low, double high) { return low + (high - low) * (bits() / 4294967296.0); }

    template <class T>
    std::vector<T> uniform(std::size_t count, double low, double high) {
        std::vector<T> numbers(count);
        for (T& number : numbers) number = static_cast<T>(uniform(low, high));
        return numbers;
    }

  private:
    std::mt19937 engine_;
};

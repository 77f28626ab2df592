// Prints the values of a ReLU network at points (n, 3). The flat float32 weights and the points are files that numpy
// wrote with `tofile`.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <stdexcept>

#include "cpu/instruction_sets.h"
#include "cpu/mlp/network_program.h"

std::vector<float> read(const char* path) {
    std::ifstream file(path, std::ios::binary | std::ios::ate);
    std::vector<float> numbers(file ? static_cast<std::size_t>(file.tellg()) / sizeof(float) : 0);
    file.seekg(0).read(reinterpret_cast<char*>(numbers.data()), numbers.size() * sizeof(float));
    return numbers;
}

int main(int count, char** arguments) try {
    using namespace neuralsdf;
    if (count < 4) throw std::invalid_argument("usage: evaluate WEIGHTS POINTS WIDTH...");
    const std::vector<float> weights = read(arguments[1]), points = read(arguments[2]);
    Architecture architecture;
    for (int i = 3; i < count; ++i) architecture.hidden.push_back(std::atoi(arguments[i]));
    const NetworkProgram network(kernel_named(supported_isas()[0]), architecture, weights.data(), weights.size());
    std::vector<float> values(points.size() / 3);
    network.evaluate(points.data(), values.size(), values.data(), Workers{});
    for (const float value : values) std::printf("%.9g\n", value);
} catch (const std::exception& error) {
    return std::fprintf(stderr, "evaluate: %s\n", error.what()), 1;
}

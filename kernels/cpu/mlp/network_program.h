// A network with packed weights, ready to be evaluated.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cpu/program.h"

namespace neuralsdf {

// Widths of the hidden layers and activation functions.
struct Architecture {
    std::vector<int> hidden;
    Activation activation = Activation::relu;
    Output output = Output::tanh;
};

// Look up the names that model files use. Throw std::invalid_argument for an unknown name.
Activation activation_named(const std::string& name);
Output output_named(const std::string& name);

// The layout of a network. Throws std::invalid_argument if the number of weights does not match the architecture, or if
// the architecture is out of bounds.
std::unique_ptr<Layout> checked_layout(const Kernel& kernel, const Architecture& architecture, std::int64_t weights);

// Packs flat weights; both_ways: for the forward and the backward pass.
Buffer packed_weights(const Layout& layout, const float* weights, bool both_ways);

// Also packs a layer for the kernel's tiles, if the layout is tiled.
void pack_tiles(const Kernel& kernel, const Layout& layout, int layer, float* packed);

// by_tiles: evaluate with the kernel's tiles, if it supports them for these layers.
class NetworkProgram : public Program {
  public:
    // `weights` (count,): for each layer the kernel (inputs, outputs) row-major, then the bias. They are copied.
    NetworkProgram(const Kernel& kernel, const Architecture& architecture, const float* weights, std::int64_t count,
                   bool by_tiles = false);

    bool by_tiles() const { return by_tiles_; }

    bool in_ball() const override { return true; }
    std::size_t evaluate_size() const override { return evaluate_workspace(*layout_); }
    std::size_t gradient_size() const override { return gradient_workspace(*layout_); }
    void evaluate_block(const float* points, int count, float* values, float* workspace,
                        const Stopped&) const override {
        evaluation()(*layout_, packed_.get(), points, count, values, workspace);
    }
    void gradient_block(const float* points, int count, float* values, float* gradients, float* workspace,
                        const Stopped&) const override {
        kernel_.evaluate_with_gradient(*layout_, packed_.get(), points, count, values, gradients, workspace);
    }

    const Kernel& kernel() const { return kernel_; }
    const Layout& layout() const { return *layout_; }
    const float* packed() const { return packed_.get(); }
    decltype(Kernel::evaluate) evaluation() const { return by_tiles_ ? kernel_.tiles->evaluate : kernel_.evaluate; }

  private:
    const std::unique_ptr<Layout> layout_;
    const Buffer packed_;
    const bool by_tiles_;
};

// Computes values (n, m) of n networks of the same architecture, `weights` (n, size), at the same points (m, 3). The
// values are equal to those of `Program::evaluate`.
void evaluate_many(const Kernel& kernel, const Architecture& architecture, const float* weights, std::int64_t n,
                   std::int64_t size, const float* points, std::int64_t m, float* values, const Workers& workers);

}  // namespace neuralsdf

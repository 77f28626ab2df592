#include "cpu/mlp/network_program.h"

#include "cpu/argument_checks.h"

namespace neuralsdf {

Activation activation_named(const std::string& name) {
    static const char* const names[] = {"relu", "sine", "softplus", "silu", "elu", "tanh"};
    for (int i = 0; i < 6; ++i)
        if (name == names[i]) return static_cast<Activation>(i);
    throw std::invalid_argument("unknown activation " + name);
}

Output output_named(const std::string& name) {
    if (name == "tanh") return Output::tanh;
    if (name == "linear") return Output::linear;
    throw std::invalid_argument("unknown output " + name);
}

std::unique_ptr<Layout> checked_layout(const Kernel& kernel, const Architecture& architecture, std::int64_t weights) {
    const std::vector<int>& hidden = architecture.hidden;
    require(!hidden.empty() && hidden.size() <= max_layers, "the number of hidden layers must be 1 to 256");
    std::int64_t expected = 0, inputs = 3;
    for (const int width : hidden) {
        require(1 <= width && width <= max_width, "the width of a hidden layer must be 1 to 8192");
        expected += (inputs + 1) * width;
        inputs = width;
    }
    expected += inputs + 1;
    require(expected <= max_weights, "the network has too many weights");
    if (weights != expected)
        throw std::invalid_argument("the network has " + std::to_string(expected) + " weights, not " +
                                    std::to_string(weights));
    auto layout = std::unique_ptr<Layout>(new Layout);  // not zeroed, because it has room for 256 layers
    make_layout(*layout, hidden.data(), static_cast<int>(hidden.size()), architecture.activation, architecture.output,
                kernel.lanes, kernel.tiles);
    return layout;
}

Buffer packed_weights(const Layout& layout, const float* weights, bool both_ways) {
    Buffer packed = make_buffer(layout.packed_size);
    pack(layout, weights, packed.get(), both_ways);
    return packed;
}

void pack_tiles(const Kernel& kernel, const Layout& layout, int l, float* packed) {
    if (layout.tiled && 0 < l && l < layout.depth) kernel.tiles->pack_layer(layout, l, packed);
}

NetworkProgram::NetworkProgram(const Kernel& kernel, const Architecture& architecture, const float* weights,
                               std::int64_t count, bool by_tiles)
    : Program(kernel),
      layout_(checked_layout(kernel, architecture, count)),
      packed_(packed_weights(*layout_, weights, true)),
      by_tiles_(by_tiles && layout_->tiled) {
    for (int l = 1; l < layout_->depth && by_tiles_; ++l) pack_tiles(kernel, *layout_, l, packed_.get());
}

void evaluate_many(const Kernel& kernel, const Architecture& architecture, const float* weights, std::int64_t n,
                   std::int64_t size, const float* points, std::int64_t m, float* values, const Workers& workers) {
    constexpr std::int64_t a_task = 4 * task_points;  // packing the weights takes about as long as evaluating 30 points
    const std::unique_ptr<Layout> layout = checked_layout(kernel, architecture, size);
    const std::int64_t parts = (m + a_task - 1) / a_task;
    const std::size_t packed = whole_lines(layout->gradient_size);  // packed weights of the forward pass
    run_with_workspaces(n * parts, workers, packed + evaluate_workspace(*layout),
                        [&](float* workspace, std::int64_t index, const auto& stopped) {
        const std::int64_t shape = index / parts, first = index % parts * a_task;
        pack(*layout, weights + shape * layout->flat_size, workspace, false);
        for_blocks(first, std::min(first + a_task, m), stopped, [&](std::int64_t at, int count) {
            kernel.evaluate(*layout, workspace, points + 3 * at, count, values + shape * m + at, workspace + packed);
        });
    });
}

}  // namespace neuralsdf

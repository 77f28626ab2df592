// The union of many networks, each in a place of its own: the least of their values at a point, found by evaluating
// only those whose ball can hold it. The value is that of the plain minimum, bit for bit.
//
// Outside of its ball a network's value is at least the distance from the ball (neuralsdf/backends/extension.py). So at
// every point the network whose ball is nearest comes first, and then those whose ball is nearer than what was found.
#pragma once

#include <vector>

#include "cpu/kernel_table.h"
#include "cpu/tape/sphere_bvh.h"

namespace neuralsdf {

// A network in a frame (neuralsdf/tape.py): q = M p + t are its own coordinates of a point p, and a length of 1 there
// is `scale` long here.
struct Place {
    const Layout* layout;
    const float* packed;  // weights, for both ways
    decltype(Kernel::evaluate) evaluate;
    int network;  // places of the same network have the same number, from 0 on
    float matrix[9], shift[3], scale;
};

// Points side by side, a coordinate `width` after the other, and what is found there: gradients lie as the points do,
// or are null.
struct NearestBlock {
    const float* points;
    int count, width;
    float* values;
    float* gradients;
};

class Nearest {
  public:
    // Points that are best evaluated together, and how many can be: enough that many of them fall to one network.
    static constexpr int batch_points = 20 * block_points;

    // There is at least one place.
    Nearest(const Kernel& kernel, std::vector<Place> places);

    // The workspace is evaluate_workspace's of the networks, or gradient_workspace's where gradients are asked for:
    // those of the least value, the first one's of several.
    void evaluate(const NearestBlock& block, float* workspace) const;

  private:
    struct Visit;
    struct Batch;

    void visit_nearest(Batch& batch, float* workspace) const;
    void visit_others(Batch& batch, float* workspace) const;
    void visit(Batch& batch, float* workspace) const;
    void differentiate(const Batch& batch, const NearestBlock& block, float* workspace) const;

    // Calls `block(place, items, count)` for all items, those of the same network together; `place_of(item)` is the
    // place of an item.
    template <class Item, class PlaceOf, class Block>
    void by_network(const std::vector<Item>& items, const PlaceOf& place_of, const Block& block) const;

    const Kernel& kernel_;
    const std::vector<Place> places_;
    int networks_;
    std::vector<BallNode> tree_;
};

}  // namespace neuralsdf

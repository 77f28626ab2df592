// The union of many networks, each in its own frame: the minimum of their values at a point. Only networks whose
// bounding sphere can contain the minimum are evaluated. The result is bitwise equal to the plain minimum.
//
// Outside of its unit ball, the value of a network is at least the distance to the ball
// (neuralsdf/backends/value_outside_ball.py). So at every point the network with the nearest ball is evaluated first,
// then those whose ball is nearer than the value found.
#pragma once

#include <vector>

#include "cpu/kernels_by_instruction_set.h"
#include "cpu/tape/sphere_bvh.h"

namespace neuralsdf {

// A network in a frame (neuralsdf/program/tape_format.py): q = M p + t are the coordinates of a point p in the space of
// the network, and a unit of length there has the length `scale`.
struct Place {
    const Layout* layout;
    const float* packed;  // weights, for both directions
    decltype(Kernel::evaluate) evaluate;
    int network;  // places with the same network have the same number, from 0
    float matrix[9], shift[3], scale;
};

// Points stored coordinate by coordinate, `width` apart, and the results. Gradients have the same layout as points, or
// are null.
struct NearestBlock {
    const float* points;
    int count, width;
    float* values;
    float* gradients;
};

class Nearest {
  public:
    // Maximum and preferred number of points per call: enough that many points belong to the same network.
    static constexpr int batch_points = 20 * block_points;

    // `places` must not be empty.
    Nearest(const Kernel& kernel, std::vector<Place> places);

    // The size of the workspace is evaluate_workspace of the networks, or gradient_workspace if gradients are
    // requested. Gradients are those of the network with the minimum, the first one on ties.
    void evaluate(const NearestBlock& block, float* workspace) const;

  private:
    struct Visit;
    struct Batch;

    void visit_nearest(Batch& batch, float* workspace) const;
    void visit_others(Batch& batch, float* workspace) const;
    void visit(Batch& batch, float* workspace) const;
    void differentiate(const Batch& batch, const NearestBlock& block, float* workspace) const;

    // Calls `block(place, first, last)` for all items, grouped by network. `place_of(item)` is the index of an item's
    // place.
    template <class Item, class PlaceOf, class Block>
    void by_network(const std::vector<Item>& items, const PlaceOf& place_of, const Block& block) const;

    const Kernel& kernel_;
    const std::vector<Place> places_;
    int networks_;
    std::vector<BallNode> tree_;
};

}  // namespace neuralsdf

// A BVH of spheres and its queries: one table of functions per instruction set.
#pragma once

#include <cstdint>

namespace neuralsdf {

// Relative rounding margin. A distance to a sphere is reduced by this fraction of the distance to its centre, and the
// radius of a sphere is increased by this fraction of its position. The margin is several times the rounding error of
// single precision.
constexpr float ball_rounding = 2e-6f;

// Spheres per node. Each is the sphere of a leaf, or encloses all spheres of another node.
constexpr int node_balls = 16;

struct alignas(64) BallNode {
    float x[node_balls], y[node_balls], z[node_balls], radius[node_balls];
    int child[node_balls];  // another node, or ~leaf
    int count;
};

// Number of points in a group. The points of a group are close together and contiguous in the arrays.
constexpr int group_points = 32;

struct BallSearch {
    // Finds the leaf (group_points,) whose sphere has the smallest signed distance |p - c| - r to each point; 0 for
    // NaN. `tree` starts with the root.
    void (*nearest)(const BallNode* tree, const float* x, const float* y, const float* z, int* leaf);

    // Calls `found(leaf, bounds, context)` for every leaf whose sphere is within the limit of at least one point.
    // `bounds` (group_points,) are the distances of all points to the sphere, -infinity inside.
    void (*within)(const BallNode* tree, const float* x, const float* y, const float* z, const float* limits,
                   void (*found)(int leaf, const float* bounds, void* context), void* context);
};

extern const BallSearch balls_baseline, balls_avx2, balls_avx512;

}  // namespace neuralsdf

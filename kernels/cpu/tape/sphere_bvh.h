// A tree of balls, and which of them are near points: a table of functions for each instruction set.
#pragma once

#include <cstdint>

namespace neuralsdf {

// A distance from a ball is too small rather than too large: by this share of how far its centre is, and the radius of
// the ball is larger by this share of where it lies. That is several times what single precision rounds.
constexpr float ball_rounding = 2e-6f;

// Balls side by side, each that of a leaf or one around all balls of another node.
constexpr int node_balls = 16;

struct alignas(64) BallNode {
    float x[node_balls], y[node_balls], z[node_balls], radius[node_balls];
    int child[node_balls];  // another node, or ~leaf
    int count;
};

// Points that lie close together, side by side in arrays that begin with them.
constexpr int group_points = 32;

struct BallSearch {
    // The leaf (group_points,) whose ball is nearest to each point, or that the point is deepest in: the least of
    // |p - c| - r; 0 for a point that is no number. `tree` begins with the root.
    void (*nearest)(const BallNode* tree, const float* x, const float* y, const float* z, int* leaf);

    // Calls `found(leaf, bounds, context)` for every leaf whose ball is no farther from some point than that point's
    // limit; bounds (group_points,) are the distances of all points from it, -infinity inside.
    void (*within)(const BallNode* tree, const float* x, const float* y, const float* z, const float* limits,
                   void (*found)(int leaf, const float* bounds, void* context), void* context);
};

extern const BallSearch balls_baseline, balls_avx2, balls_avx512;

}  // namespace neuralsdf

// Searches a BVH of spheres. Compiled once per instruction set; NEURALSDF_KERNEL is its name. All loops over groups and
// nodes have a constant trip count and independent iterations, so that the compiler vectorises them.
#include "cpu/tape/sphere_bvh.h"

namespace neuralsdf {
namespace {

constexpr float infinity = __builtin_inff();

// Maximum depth; the nodes of a deeper tree would not fit in memory.
constexpr int deepest = 16;

struct Group {
    const float *x, *y, *z;
    float low[3], high[3];

    Group(const float* x, const float* y, const float* z) : x(x), y(y), z(z) {
        const float* const coordinates[] = {x, y, z};
        for (int k = 0; k < 3; ++k) {
            float negative[group_points], positive[group_points];
            for (int i = 0; i < group_points; ++i) {
                const float p = coordinates[k][i];
                negative[i] = p == p ? -p : -infinity;  // ignores NaN
                positive[i] = p == p ? p : -infinity;
            }
            low[k] = -maximum(negative);
            high[k] = maximum(positive);
        }
    }

    // The maximum of numbers (group_points,), which are overwritten.
    static float maximum(float* numbers) {
        for (int half = group_points / 2; half > 0; half /= 2)
            for (int i = 0; i < half; ++i) numbers[i] = numbers[i] > numbers[i + half] ? numbers[i] : numbers[i + half];
        return numbers[0];
    }

    // Distances of the spheres of a node to the box around the points.
    void from_box(const BallNode& node, float* distances) const {
        for (int i = 0; i < node_balls; ++i) {
            const float c[] = {node.x[i], node.y[i], node.z[i]};
            float sum = 0;
            for (int k = 0; k < 3; ++k) {
                const float below = low[k] - c[k], above = c[k] - high[k];
                const float farther = below > above ? below : above, beside = farther > 0 ? farther : 0;
                sum += beside * beside;
            }
            distances[i] = __builtin_sqrtf(sum) * (1 - ball_rounding) - node.radius[i];
        }
    }

    // Distances of a sphere to the points.
    void from_points(const BallNode& node, int ball, float* distances) const {
        const float cx = node.x[ball], cy = node.y[ball], cz = node.z[ball], radius = node.radius[ball];
        for (int i = 0; i < group_points; ++i) {
            const float dx = x[i] - cx, dy = y[i] - cy, dz = z[i] - cz;
            distances[i] = __builtin_sqrtf(dx * dx + dy * dy + dz * dz) * (1 - ball_rounding) - radius;
        }
    }
};

// Calls `found(node, ball)` for the leaves whose sphere is at most `limit` from the box of a group. `found` may lower
// the limit.
template <class Found>
void search(const BallNode* tree, const Group& group, const float& limit, const Found& found) {
    int waiting[deepest * node_balls], count = 1;
    float smallest[deepest * node_balls];
    waiting[0] = 0, smallest[0] = -infinity;
    while (count > 0) {
        --count;
        if (!(smallest[count] <= limit)) continue;
        const BallNode& node = tree[waiting[count]];
        float distances[node_balls];
        group.from_box(node, distances);
        // Visit the nearest child first, because it lowers the limit.
        int nearest = 0;
        for (int i = 1; i < node.count; ++i) nearest = distances[i] < distances[nearest] ? i : nearest;
        for (int k = 0; k < node.count; ++k) {
            const int i = (nearest + k) % node.count;
            if (node.child[i] < 0 && distances[i] <= limit) found(node, i);
        }
        for (int k = node.count; k-- > 0;) {
            const int i = (nearest + k) % node.count;
            if (node.child[i] >= 0 && distances[i] <= limit)
                waiting[count] = node.child[i], smallest[count++] = distances[i];
        }
    }
}

void nearest(const BallNode* tree, const float* x, const float* y, const float* z, int* leaf) {
    const Group group(x, y, z);
    float smallest[group_points], limit = infinity;
    for (int i = 0; i < group_points; ++i) smallest[i] = infinity, leaf[i] = 0;
    search(tree, group, limit, [&](const BallNode& node, int ball) {
        float distances[group_points], farthest[group_points];
        group.from_points(node, ball, distances);
        const int number = ~node.child[ball];
        for (int i = 0; i < group_points; ++i) {
            leaf[i] = distances[i] < smallest[i] ? number : leaf[i];
            smallest[i] = distances[i] < smallest[i] ? distances[i] : smallest[i];
            farthest[i] = smallest[i];
        }
        limit = Group::maximum(farthest);
    });
}

void within(const BallNode* tree, const float* x, const float* y, const float* z, const float* limits,
            void (*found)(int leaf, const float* bounds, void* context), void* context) {
    const Group group(x, y, z);
    float most[group_points];
    for (int i = 0; i < group_points; ++i) most[i] = limits[i] == limits[i] ? limits[i] : -infinity;
    const float limit = Group::maximum(most);
    search(tree, group, limit, [&](const BallNode& node, int ball) {
        float bounds[group_points];
        group.from_points(node, ball, bounds);
        int reached = 0;
        for (int i = 0; i < group_points; ++i) {
            bounds[i] = bounds[i] > 0 ? bounds[i] : -infinity;
            reached |= bounds[i] <= limits[i];
        }
        if (reached) found(~node.child[ball], bounds, context);
    });
}

}  // namespace

#define TABLE(isa) const BallSearch balls_##isa = {nearest, within};
#define EXPAND(isa) TABLE(isa)
EXPAND(NEURALSDF_KERNEL)

}  // namespace neuralsdf

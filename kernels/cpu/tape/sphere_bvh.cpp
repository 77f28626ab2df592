// The search in a tree of balls, compiled once for each instruction set with NEURALSDF_KERNEL naming it. Every loop
// has a constant number of rounds, each for itself: the compiler makes vectors of them.
#include "cpu/tape/sphere_bvh.h"

namespace neuralsdf {
namespace {

constexpr float infinity = __builtin_inff();

// A search needs no more: the nodes of a tree of this depth would not fit in memory.
constexpr int deepest = 16;

struct Group {
    const float *x, *y, *z;
    float low[3], high[3];

    Group(const float* x, const float* y, const float* z) : x(x), y(y), z(z) {
        const float* const coordinates[] = {x, y, z};
        for (int k = 0; k < 3; ++k) {
            float least[group_points], most[group_points];
            for (int i = 0; i < group_points; ++i) {
                const float p = coordinates[k][i];
                least[i] = p == p ? -p : -infinity;  // points that are no numbers do not count
                most[i] = p == p ? p : -infinity;
            }
            low[k] = -greatest(least);
            high[k] = greatest(most);
        }
    }

    // The greatest of numbers (group_points,), which are changed.
    static float greatest(float* numbers) {
        for (int half = group_points / 2; half > 0; half /= 2)
            for (int i = 0; i < half; ++i) numbers[i] = numbers[i] > numbers[i + half] ? numbers[i] : numbers[i + half];
        return numbers[0];
    }

    // Distances of the balls of a node from the box around the points.
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

    // Distances of a ball from the points.
    void from_points(const BallNode& node, int ball, float* distances) const {
        const float cx = node.x[ball], cy = node.y[ball], cz = node.z[ball], radius = node.radius[ball];
        for (int i = 0; i < group_points; ++i) {
            const float dx = x[i] - cx, dy = y[i] - cy, dz = z[i] - cz;
            distances[i] = __builtin_sqrtf(dx * dx + dy * dy + dz * dz) * (1 - ball_rounding) - radius;
        }
    }
};

// Calls `found(node, ball)` for the leaves whose balls are at most `limit` from the box of a group; it may lower that.
template <class Found>
void search(const BallNode* tree, const Group& group, const float& limit, const Found& found) {
    int waiting[deepest * node_balls], count = 1;
    float least[deepest * node_balls];
    waiting[0] = 0, least[0] = -infinity;
    while (count > 0) {
        --count;
        if (!(least[count] <= limit)) continue;
        const BallNode& node = tree[waiting[count]];
        float distances[node_balls];
        group.from_box(node, distances);
        // The nearest first: what is found there lowers the limit.
        int nearest = 0;
        for (int i = 1; i < node.count; ++i) nearest = distances[i] < distances[nearest] ? i : nearest;
        for (int k = 0; k < node.count; ++k) {
            const int i = (nearest + k) % node.count;
            if (node.child[i] < 0 && distances[i] <= limit) found(node, i);
        }
        for (int k = node.count; k-- > 0;) {
            const int i = (nearest + k) % node.count;
            if (node.child[i] >= 0 && distances[i] <= limit)
                waiting[count] = node.child[i], least[count++] = distances[i];
        }
    }
}

void nearest(const BallNode* tree, const float* x, const float* y, const float* z, int* leaf) {
    const Group group(x, y, z);
    float least[group_points], limit = infinity;
    for (int i = 0; i < group_points; ++i) least[i] = infinity, leaf[i] = 0;
    search(tree, group, limit, [&](const BallNode& node, int ball) {
        float distances[group_points], farthest[group_points];
        group.from_points(node, ball, distances);
        const int number = ~node.child[ball];
        for (int i = 0; i < group_points; ++i) {
            leaf[i] = distances[i] < least[i] ? number : leaf[i];
            least[i] = distances[i] < least[i] ? distances[i] : least[i];
            farthest[i] = least[i];
        }
        limit = Group::greatest(farthest);
    });
}

void within(const BallNode* tree, const float* x, const float* y, const float* z, const float* limits,
            void (*found)(int leaf, const float* bounds, void* context), void* context) {
    const Group group(x, y, z);
    float most[group_points];
    for (int i = 0; i < group_points; ++i) most[i] = limits[i] == limits[i] ? limits[i] : -infinity;
    const float limit = Group::greatest(most);
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

#include "cpu/tape/network_union.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <numeric>

namespace neuralsdf {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

struct ExactBall {
    double centre[3], radius;
};

ExactBall ball_of(const Place& place) {
    ExactBall ball{{0, 0, 0}, place.scale};
    // The centre is the point with q = 0. The inverse of M is its transpose up to the scale.
    for (int k = 0; k < 3; ++k)
        for (int row = 0; row < 3; ++row)
            ball.centre[k] -= double(place.matrix[3 * row + k]) * place.shift[row] * place.scale * place.scale;
    return ball;
}

ExactBall around(const ExactBall& a, const ExactBall& b) {
    double between = 0;
    for (int k = 0; k < 3; ++k) between += (b.centre[k] - a.centre[k]) * (b.centre[k] - a.centre[k]);
    between = std::sqrt(between);
    if (a.radius >= between + b.radius) return a;
    if (b.radius >= between + a.radius) return b;
    ExactBall both{{}, (a.radius + b.radius + between) / 2};
    const double fraction = (both.radius - a.radius) / between;
    for (int k = 0; k < 3; ++k) both.centre[k] = a.centre[k] + (b.centre[k] - a.centre[k]) * fraction;
    return both;
}

// Builds the BVH of the bounding spheres of places. A node divides its leaves, as evenly as possible, among full child
// nodes.
class TreeBuilder {
  public:
    TreeBuilder(const std::vector<Place>& places, std::vector<BallNode>& tree) : order_(places.size()), tree_(tree) {
        for (const Place& place : places) leaves_.push_back(ball_of(place));
        std::iota(order_.begin(), order_.end(), 0);
        node(0, static_cast<int>(places.size()));
    }

  private:
    // Adds the node of the leaves from `first` to `last`; returns its bounding sphere.
    ExactBall node(int first, int last) {
        const std::size_t at = tree_.size();
        tree_.push_back({});
        const int leaves = last - first, full = (leaves + node_balls - 1) / node_balls;
        ExactBall whole{};
        part(first, last, full == 1 ? leaves : std::min(full, node_balls), [&](int from, int to) {
            const bool alone = to - from == 1;
            const int child = alone ? ~order_[from] : static_cast<int>(tree_.size());
            const ExactBall ball = alone ? leaves_[order_[from]] : node(from, to);
            whole = from == first ? ball : around(whole, ball);
            add(tree_[at], ball, child);
        });
        return whole;
    }

    // Calls `found(first, last)` for `parts` parts, by recursive bisection along the longest side.
    template <class Found>
    void part(int first, int last, int parts, const Found& found) {
        if (parts == 1) return found(first, last);
        const int middle = first + static_cast<int>(std::int64_t(last - first) * (parts / 2) / parts);
        const int axis = longest(first, last);
        const auto before = [&](int a, int b) {
            const double at_a = leaves_[a].centre[axis], at_b = leaves_[b].centre[axis];
            return at_a < at_b || (at_a == at_b && a < b);
        };
        std::nth_element(order_.begin() + first, order_.begin() + middle, order_.begin() + last, before);
        part(first, middle, parts / 2, found);
        part(middle, last, parts - parts / 2, found);
    }

    int longest(int first, int last) const {
        double extent[3];
        for (int k = 0; k < 3; ++k) {
            const auto [low, high] =
                std::minmax_element(order_.begin() + first, order_.begin() + last,
                                    [&](int a, int b) { return leaves_[a].centre[k] < leaves_[b].centre[k]; });
            extent[k] = leaves_[*high].centre[k] - leaves_[*low].centre[k];
        }
        return static_cast<int>(std::max_element(extent, extent + 3) - extent);
    }

    static void add(BallNode& node, const ExactBall& ball, int child) {
        double out = ball.radius;  // rounding errors of frames and of distances near it are relative to this
        for (const double c : ball.centre) out += 2 * std::abs(c);
        const int i = node.count++;
        node.x[i] = static_cast<float>(ball.centre[0]);
        node.y[i] = static_cast<float>(ball.centre[1]);
        node.z[i] = static_cast<float>(ball.centre[2]);
        node.radius[i] = static_cast<float>(ball.radius + ball_rounding * out);
        node.child[i] = child;
    }

    std::vector<ExactBall> leaves_;
    std::vector<int> order_;
    std::vector<BallNode>& tree_;
};

// Computes the closest point of a place's unit ball in its own coordinates; returns the distance to it in these.
float into_ball(const Place& place, const float* p, float* inner) {
    const float* m = place.matrix;
    for (int row = 0; row < 3; ++row, m += 3) inner[row] = m[0] * p[0] + m[1] * p[1] + m[2] * p[2] + place.shift[row];
    const float squared = inner[0] * inner[0] + inner[1] * inner[1] + inner[2] * inner[2];
    if (!(squared > 1)) return 0;
    const float radius = std::sqrt(squared);
    for (int row = 0; row < 3; ++row) inner[row] *= 1 / radius;
    return radius - 1;
}

// Extends a value in the ball to a point at the distance `excess` from the ball.
float extended(float value, float excess) {
    if (!(excess > 0)) return value;
    const float outside = value < 0 ? 0 : value;
    return std::sqrt(excess * excess + outside * outside);
}

// Extends a gradient; `inner` is on the unit sphere and its normal.
void extend_gradient(float value, float excess, const float* inner, float* gradient) {
    if (!(excess > 0)) return;
    const float outside = value < 0 ? 0 : value, total = extended(value, excess);
    const float radial = gradient[0] * inner[0] + gradient[1] * inner[1] + gradient[2] * inner[2];
    for (int k = 0; k < 3; ++k) {
        const float tangential = (gradient[k] - radial * inner[k]) / (1 + excess);
        gradient[k] = (excess * inner[k] + outside * tangential) / total;
    }
}

}  // namespace

// A point to be evaluated in a place, with a lower bound of its value there.
struct Nearest::Visit {
    int place, point;
    float bound;
};

// Points in Morton order, so that the points of a group are close together.
struct Nearest::Batch {
    static constexpr int cells = 8;  // cells per side of the box around all points

    int count;
    int order[batch_points];  // index of the point in the input
    float coordinates[3][batch_points + group_points];
    float lowest[batch_points + group_points];
    int place[batch_points];                   // place with the minimum
    int nearest[batch_points + group_points];  // the place whose ball is nearest
    std::vector<Visit> visits;

    explicit Batch(const NearestBlock& block) : count(block.count) {
        sort(block);
        // Padding of the last group repeats the last point and exceeds all limits.
        for (int i = count; i % group_points; ++i)
            for (auto& row : coordinates) row[i] = row[count - 1];
        std::fill_n(lowest, count, infinity);
        std::fill_n(lowest + count, group_points, -infinity);
        std::fill_n(place, count, std::numeric_limits<int>::max());
    }

    void point(int i, float* p) const {
        for (int k = 0; k < 3; ++k) p[k] = coordinates[k][i];
    }

  private:
    void sort(const NearestBlock& block) {
        static constexpr int spread[cells] = {0, 1, 8, 9, 64, 65, 72, 73};
        float low[3], longest = 0;
        for (int k = 0; k < 3; ++k) {
            const float* row = block.points + std::size_t(k) * block.width;
            float high = -infinity;
            low[k] = infinity;
            for (int i = 0; i < count; ++i) {
                low[k] = row[i] < low[k] ? row[i] : low[k];
                high = row[i] > high ? row[i] : high;
            }
            longest = std::max(longest, high - low[k]);
        }
        const float scale = longest > 0 && longest < infinity ? cells * 0.999f / longest : 0;
        std::uint16_t keys[batch_points] = {};
        for (int k = 0; k < 3; ++k) {
            const float* row = block.points + std::size_t(k) * block.width;
            for (int i = 0; i < count; ++i) {
                const float cell = (row[i] - low[k]) * scale;
                keys[i] |= spread[cell > 0 && cell < cells ? static_cast<int>(cell) : 0] << k;
            }
        }
        int ends[cells * cells * cells + 1] = {};
        for (int i = 0; i < count; ++i) ++ends[keys[i] + 1];
        std::partial_sum(ends, ends + cells * cells * cells, ends);
        for (int i = 0; i < count; ++i) {
            const int at = ends[keys[i]]++;
            order[at] = i;
            for (int k = 0; k < 3; ++k) coordinates[k][at] = block.points[std::size_t(k) * block.width + i];
        }
    }
};

Nearest::Nearest(const Kernel& kernel, std::vector<Place> places)
    : kernel_(kernel), places_(std::move(places)), networks_(0) {
    for (const Place& place : places_) networks_ = std::max(networks_, place.network + 1);
    TreeBuilder(places_, tree_);
}

void Nearest::evaluate(const NearestBlock& block, float* workspace) const {
    const auto batch = std::make_unique<Batch>(block);
    visit_nearest(*batch, workspace);
    visit_others(*batch, workspace);
    for (int i = 0; i < block.count; ++i) block.values[batch->order[i]] = batch->lowest[i];
    if (block.gradients) differentiate(*batch, block, workspace);
}

void Nearest::visit_nearest(Batch& batch, float* workspace) const {
    const auto& [x, y, z] = batch.coordinates;
    for (int i = 0; i < batch.count; i += group_points)
        kernel_.balls.nearest(tree_.data(), x + i, y + i, z + i, batch.nearest + i);
    for (int i = 0; i < batch.count; ++i) batch.visits.push_back({batch.nearest[i], i, -infinity});
    visit(batch, workspace);
}

void Nearest::visit_others(Batch& batch, float* workspace) const {
    struct Context {
        Batch& batch;
        int first;
    } context{batch, 0};
    const auto found = [](int place, const float* bounds, void* of) {
        auto& [batch, first] = *static_cast<Context*>(of);
        const int last = std::min(first + group_points, batch.count);
        for (int i = first; i < last; ++i)
            if (bounds[i - first] <= batch.lowest[i] && batch.nearest[i] != place)
                batch.visits.push_back({place, i, bounds[i - first]});
    };
    batch.visits.clear();
    const auto& [x, y, z] = batch.coordinates;
    for (int& i = context.first; i < batch.count; i += group_points)
        kernel_.balls.within(tree_.data(), x + i, y + i, z + i, batch.lowest + i, found, &context);
    visit(batch, workspace);
}

template <class Item, class PlaceOf, class Block>
void Nearest::by_network(const std::vector<Item>& items, const PlaceOf& place_of, const Block& block) const {
    const auto network = [&](const Item& item) { return places_[place_of(item)].network; };
    std::vector<int> ends(networks_ + 1);
    for (const Item& item : items) ++ends[network(item) + 1];
    std::partial_sum(ends.begin(), ends.end(), ends.begin());
    std::vector<Item> sorted(items.size());
    for (const Item& item : items) sorted[ends[network(item)]++] = item;
    for (std::size_t first = 0, last = 0; first < sorted.size(); first = last) {
        while (last < sorted.size() && network(sorted[last]) == network(sorted[first])) ++last;
        block(places_[place_of(sorted[first])], sorted.data() + first, sorted.data() + last);
    }
}

void Nearest::visit(Batch& batch, float* workspace) const {
    float inner[3 * block_points], excess[block_points], values[block_points];
    const Visit* due[block_points];
    by_network(batch.visits, [](const Visit& visit) { return visit.place; },
               [&](const Place& network, const Visit* next, const Visit* last) {
        while (next < last) {
            int count = 0;
            for (; next < last && count < block_points; ++next) {
                if (!(next->bound <= batch.lowest[next->point])) continue;
                float p[3];
                batch.point(next->point, p);
                excess[count] = into_ball(places_[next->place], p, inner + 3 * count);
                due[count++] = next;
            }
            if (count > 0) network.evaluate(*network.layout, network.packed, inner, count, values, workspace);
            for (int i = 0; i < count; ++i) {
                const int place = due[i]->place;
                const float value = extended(values[i], excess[i]) * places_[place].scale;
                float& lowest = batch.lowest[due[i]->point];
                int& best = batch.place[due[i]->point];
                // NaN is kept, because no value is less than NaN.
                if (value < lowest || value != value || (value == lowest && place < best)) lowest = value, best = place;
            }
        }
    });
}

void Nearest::differentiate(const Batch& batch, const NearestBlock& block, float* workspace) const {
    std::vector<int> items(batch.count);
    std::iota(items.begin(), items.end(), 0);
    float inner[3 * block_points], excess[block_points], values[block_points], slopes[3 * block_points];
    by_network(items, [&](int i) { return batch.place[i]; },
               [&](const Place& network, const int* next, const int* last) {
        for (; next < last; next += block_points) {
            const int count = static_cast<int>(std::min<std::ptrdiff_t>(block_points, last - next));
            for (int i = 0; i < count; ++i) {
                float p[3];
                batch.point(next[i], p);
                excess[i] = into_ball(places_[batch.place[next[i]]], p, inner + 3 * i);
            }
            kernel_.evaluate_with_gradient(*network.layout, network.packed, inner, count, values, slopes, workspace);
            for (int i = 0; i < count; ++i) {
                const Place& place = places_[batch.place[next[i]]];
                const float *m = place.matrix, *g = slopes + 3 * i;
                extend_gradient(values[i], excess[i], inner + 3 * i, slopes + 3 * i);
                for (int k = 0; k < 3; ++k)
                    block.gradients[std::size_t(k) * block.width + batch.order[next[i]]] =
                        place.scale * (m[k] * g[0] + m[3 + k] * g[1] + m[6 + k] * g[2]);
            }
        }
    });
}

}  // namespace neuralsdf

// trace.h
// Rays marched through a network or a tape: sphere tracing (Hart 1996) and soft shadows, as
// neuralsdf/backends/marching.py, which is the reference and says why. One persistent kernel: a warp holds as many rays as its tile has columns;
// each turn evaluates all of them at once and moves each on, whether it marches or its root is being found; a
// ray that ends gives its place to the next one at once, so that the tile stays full while rays are left. The last
// rays, a few in ten thousand that need ten times as many turns, stand at the front of their tiles, where a turn
// in float32 takes less the fewer they are.
//
// By tensor cores the field is another one, by less than its surface error: brackets and roots are of that field.
#pragma once

#include "tensor.h"

namespace neuralsdf {
namespace gpu {

struct Rays {
    const float* begin;       // (count, 3), t = 0
    const float* directions;  // (count, 3)
    const float* ends;        // (count,) t
    unsigned long long* counters;  // the next ray, and the evaluations so far; both begin at zero
    long long count;          // less than 2^31
};

enum Flag : unsigned char { hit = 1, unresolved = 2, buried = 4 };

template <class Field>
struct TracingOf {
    Field field;
    Rays rays;
    const unsigned char* at_ball;  // (count,) whether a ray begins on the ball
    const float* steps;            // safe steps from level 0 to max_level
    float* t;                      // (count,) of the surface, or 0
    unsigned char* flags;          // (count,) enum Flag
    float max_level, levels_a_unit, touch_depth, root_tolerance;
    int levels;                    // of `steps`, at least 2
    int max_steps, root_steps;     // less than 2^16

    struct Ray {
        int index;               // negative: none
        float at;                // t of the next evaluation
        float low, low_value;    // the last t outside the solid, or the root's lower bracket, and its value
        float high, high_value;  // the root's upper bracket
        unsigned turns : 16, flags : 8, outside : 1, rooting : 1;
        unsigned kept_low : 1, kept_high : 1;  // which of the root's brackets the last turn kept
    };

    NEURALSDF_DEVICE bool start(Ray& ray) const {
        ray.turns = 0;
        ray.at = 0.0f;
        ray.flags = 0;
        ray.outside = ray.rooting = ray.kept_low = ray.kept_high = 0;
        return true;
    }

    NEURALSDF_DEVICE void advance(Ray& ray, float value) const { ray.rooting ? root(ray, value) : march(ray, value); }

    NEURALSDF_DEVICE void march(Ray& ray, float value) const {
        const bool inside = value < 0.0f;
        if (ray.turns == 0 && at_ball[ray.index]) {
            ray.outside = value >= -touch_depth;
            if (inside && !ray.outside) ray.flags = buried;
        }
        if (!(absolute(value) <= 3.402823466e38f)) return end(ray, ray.flags | unresolved, 0.0f);
        if (inside && ray.outside) {  // once a ray has been outside the solid, a negative value is a hit
            if (ray.at == 0.0f) return end(ray, ray.flags | hit, 0.0f);
            ray.rooting = 1;
            ray.turns = 0;
            ray.high = ray.at;
            ray.high_value = value;
            return guess(ray);
        }
        ray.outside = ray.outside || !inside;
        ray.low = ray.at;
        ray.low_value = value;
        ray.at += safe_step(absolute(value));
        if (!(ray.at < rays.ends[ray.index])) return end(ray, ray.flags, 0.0f);
        if (++ray.turns == max_steps) end(ray, ray.flags | unresolved, 0.0f);
    }

    NEURALSDF_DEVICE float safe_step(float distance) const {
        const float level = (distance < max_level ? distance : max_level) * levels_a_unit;
        const int below = static_cast<int>(level) < levels - 2 ? static_cast<int>(level) : levels - 2;
        return multiply_add(level - static_cast<float>(below), steps[below + 1] - steps[below], steps[below]);
    }

    // Regula falsi with Illinois weights; every fourth turn bisects, for fields that jump.
    NEURALSDF_DEVICE void root(Ray& ray, float value) const {
        if (value < 0.0f) {
            ray.high = ray.at;
            ray.high_value = value;
            if (ray.kept_low) ray.low_value *= 0.5f;  // an end kept twice counts half, or the other would creep
        } else {
            ray.low = ray.at;
            ray.low_value = value;
            if (ray.kept_high) ray.high_value *= 0.5f;
        }
        ray.kept_low = value < 0.0f;
        ray.kept_high = !ray.kept_low;
        const bool on = absolute(value) > root_tolerance && ray.high - ray.low > root_tolerance;
        if (!on || ++ray.turns == root_steps) return end(ray, ray.flags | hit, ray.at);
        guess(ray);
    }

    NEURALSDF_DEVICE void guess(Ray& ray) const {
        const float share = ray.turns % 4 == 3 ? 0.5f : ray.low_value / (ray.low_value - ray.high_value);
        ray.at = ray.low + (ray.high - ray.low) * share;
    }

    NEURALSDF_DEVICE void end(Ray& ray, int with, float at) const {
        t[ray.index] = at;
        flags[ray.index] = static_cast<unsigned char>(with);
        ray.index = -1;
    }
};

template <class Field>
struct ShadowOf {
    Field field;
    Rays rays;
    float* share;  // (count,)
    float first, least_step, greatest_step, sharpness, dark;
    float scale;  // of values: no slope of the field is above one over it
    int max_steps;

    struct Ray {
        int index, turns;
        float at, light, unused;
    };

    NEURALSDF_DEVICE bool start(Ray& ray) const {
        ray.turns = 0;
        ray.at = first;
        ray.light = 1.0f;
        return goes_on(ray);
    }

    NEURALSDF_DEVICE void advance(Ray& ray, float value) const {
        value *= scale;
        float seen = sharpness * value / ray.at;
        seen = seen < 0.0f ? 0.0f : seen;
        ray.light = ray.light < seen ? ray.light : seen;
        ray.at += clamp(value, least_step, greatest_step);
        ++ray.turns;
        goes_on(ray);
    }

    // Whether there is another turn; ends the ray if not.
    NEURALSDF_DEVICE bool goes_on(Ray& ray) const {
        if (ray.turns < max_steps && ray.at < rays.ends[ray.index] && ray.light > dark) return true;
        share[ray.index] = ray.light;
        ray.index = -1;
        return false;
    }
};

using Tracing = TracingOf<Network>;
using Shadow = ShadowOf<Network>;

// A network's weights in shared memory.
template <int W>
struct Weights {
    static NEURALSDF_DEVICE int weights_size(const Network& network) { return gpu::weights_size<W>(network); }
    static NEURALSDF_DEVICE void load(const Block& block, const Network& network) { load_resident<W>(block, network); }
    static NEURALSDF_DEVICE bool in_step(const Network& network) { return !network.resident; }
};

// How values come about, and what of the field is in shared memory: of `columns` points in each warp's tile, whose
// coordinates are its first three rows, the first `in_use(thread)` at least. `values` then is the row of the tile that holds them.
template <int W>
struct InFloat32 : Weights<W> {
    static constexpr int columns = Tile<W>::columns, values = 0;

    static NEURALSDF_DEVICE int tile_size(const Network&) { return W * columns; }

    template <class InUse>
    static NEURALSDF_DEVICE void evaluate(const Block& block, const Network& network, float* tiles, InUse in_use) {
        evaluate_tiles<W, points_alone>(block, network, tiles, in_use,
                                        [&](int thread, int quad, const float (&y)[4]) {
                                            store(tile_of<W>(tiles, thread) + 4 * quad, y);  // only this quad's
                                        });
    }
};

// Behind a tile's four rows is the scratch of its warp, if the activation needs any.
template <int W>
struct ByTensorCores : Weights<W> {
    static constexpr int columns = Lane<W>::points, values = 3;

    static NEURALSDF_DEVICE int tile_size(const Network& network) {
        return 4 * columns + (network.activation == relu ? 0 : W * columns);
    }

    template <class InUse>
    static NEURALSDF_DEVICE void evaluate(const Block& block, const Network& network, float* tiles, InUse) {
        const int size = tile_size(network);
        const auto tile = [&](int thread) { return tiles + thread / warp_threads * size; };
        evaluate_in_registers<W>(
            block, network, [&](int thread) { return tile(thread) + 4 * columns; },
            [&](int thread, int row, float(&x)[3]) {
                NEURALSDF_UNROLL for (int i = 0; i < 3; ++i) x[i] = tile(thread)[i * columns + row];
            },
            [&](int thread, int row, float y) { tile(thread)[values * columns + row] = y; });
        block.each_in_warps([](int) {});  // the values are there
    }
};

// The rays of a lane, on their way to the front.
template <int Columns, class Ray>
struct Held {
    static constexpr int most = (Columns + warp_threads - 1) / warp_threads;
    Ray rays[most];
};

// Shared memory: the weights, then a tile a warp, then a tile's rays a warp.
template <class Values, class March>
NEURALSDF_DEVICE void march_rays(const Block& block, const March& a) {
    constexpr int columns = Values::columns;
    using Ray = typename March::Ray;
    // Lanes that read a field of neighbouring rays meet different banks.
    static_assert(sizeof(Ray) % 8 == 4, "an odd number of words");
    const int tile_size = Values::tile_size(a.field);
    float* const tiles = block.shared + Values::weights_size(a.field);
    Ray* const all = reinterpret_cast<Ray*>(tiles + block.threads() / warp_threads * tile_size);
    const auto tile_of = [&](int thread) { return tiles + thread / warp_threads * tile_size; };
    const auto rays_of = [&](int thread) { return all + thread / warp_threads * columns; };
    const auto count = static_cast<unsigned long long>(a.rays.count);

    PerThread<int> wanted, before, under_way, in_use;
    PerThread<unsigned long long> next, evaluations;
    PerThread<bool> open, live;  // whether rays are left to take; whether the warp goes on
    PerThread<Held<columns, Ray>> held;
    block.each_in_warps([&](int thread) {
        open[thread] = thread % warp_threads < columns;
        evaluations[thread] = 0;
        for (int c = thread % warp_threads; c < columns; c += warp_threads) rays_of(thread)[c].index = -1;
    });
    Values::load(block, a.field);
    for (;;) {
        // Rays under way move to the front of their warp's places.
        block.each_in_warps([&](int thread) {
            int here = 0;
            NEURALSDF_UNROLL for (int i = 0; i < Held<columns, Ray>::most; ++i) {
                const int c = thread % warp_threads + i * warp_threads;
                held[thread].rays[i].index = -1;
                if (c < columns) held[thread].rays[i] = rays_of(thread)[c];
                here += held[thread].rays[i].index >= 0;
            }
            wanted[thread] = here;
        });
        block.sum_before(wanted, before, under_way);
        block.each_in_warps([&](int thread) {
            int to = before[thread];
            NEURALSDF_UNROLL for (int i = 0; i < Held<columns, Ray>::most; ++i)
                if (held[thread].rays[i].index >= 0) rays_of(thread)[to++] = held[thread].rays[i];
            int free = 0;
            for (int c = thread % warp_threads; c < columns; c += warp_threads) {
                if (c < under_way[thread]) continue;
                rays_of(thread)[c].index = -1;
                ++free;
            }
            wanted[thread] = open[thread] ? free : 0;
        });
        block.take(a.rays.counters, wanted, next);
        // New rays take the places that are free, and all write their points.
        block.each_in_warps([&](int thread) {
            float* const tile = tile_of(thread);
            int started = 0;
            for (int c = thread % warp_threads; c < columns; c += warp_threads) {
                Ray& ray = rays_of(thread)[c];
                while (ray.index < 0 && wanted[thread] > 0) {
                    open[thread] = next[thread] < count;
                    if (!open[thread]) break;
                    ray.index = static_cast<int>(next[thread]++);
                    wanted[thread] = wanted[thread] - 1;
                    started += a.start(ray);
                }
                const bool here = ray.index >= 0;
                NEURALSDF_UNROLL for (int i = 0; i < 3; ++i) {
                    const long long at = 3LL * ray.index + i;
                    tile[i * columns + c] = here ? multiply_add(ray.at, a.rays.directions[at], a.rays.begin[at]) : 0.0f;
                }
            }
            wanted[thread] = started;
            live[thread] = started || under_way[thread] || open[thread];
        });
        if (!block.any(live, Values::in_step(a.field))) break;
        block.sum_before(wanted, before, in_use);
        block.each_in_warps([&](int thread) {
            // New rays may lie anywhere behind the others; without any, only the front is in use.
            in_use[thread] = in_use[thread] ? columns : under_way[thread];
        });
        Values::evaluate(block, a.field, tiles, [&](int thread) { return in_use[thread]; });
        block.each_in_warps([&](int thread) {
            const float* const values = tile_of(thread) + Values::values * columns;
            for (int c = thread % warp_threads; c < columns; c += warp_threads) {
                Ray& ray = rays_of(thread)[c];
                if (ray.index < 0) continue;
                a.advance(ray, values[c]);
                evaluations[thread] = evaluations[thread] + 1;
            }
        });
    }
    block.each_in_warps([&](int thread) { block.add(a.rays.counters + 1, evaluations[thread]); });
}

template <int W>
NEURALSDF_DEVICE void trace(const Block& block, const Tracing& a) {
    march_rays<InFloat32<W>>(block, a);
}

template <int W>
NEURALSDF_DEVICE void trace_tensor(const Block& block, const Tracing& a) {
    march_rays<ByTensorCores<W>>(block, a);
}

template <int W>
NEURALSDF_DEVICE void soft_shadow(const Block& block, const Shadow& a) {
    march_rays<InFloat32<W>>(block, a);
}

template <int W>
NEURALSDF_DEVICE void soft_shadow_tensor(const Block& block, const Shadow& a) {
    march_rays<ByTensorCores<W>>(block, a);
}

}  // namespace gpu
}  // namespace neuralsdf

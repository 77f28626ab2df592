#include "trace.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "layout.h"

namespace neuralsdf {
namespace {

struct Vector3 {
    float x, y, z;
};

Vector3 read(const float* from) { return {from[0], from[1], from[2]}; }
Vector3 operator+(Vector3 a, Vector3 b) { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
Vector3 operator-(Vector3 a, Vector3 b) { return {a.x - b.x, a.y - b.y, a.z - b.z}; }
Vector3 operator*(Vector3 a, float s) { return {a.x * s, a.y * s, a.z * s}; }
float length(Vector3 a) { return std::sqrt(a.x * a.x + a.y * a.y + a.z * a.z); }

// Walks all of `walkers` to their ends in full blocks: who has ended makes room for who still waits. A walker has
// a `point()` to be evaluated, and `step(value)` takes it on: false at its end. Returns the evaluations.
template <class Walker>
std::int64_t walk(std::vector<Walker>& walkers, const Evaluate& evaluate, const Stopped& stopped) {
    Walker* live[block_points];
    float points[3 * block_points], values[block_points];
    std::int64_t evaluations = 0;
    int count = 0;
    for (auto next = walkers.begin(); !stopped();) {
        while (count < block_points && next != walkers.end()) live[count++] = &*next++;
        if (count == 0) break;
        for (int i = 0; i < count; ++i) {
            const Vector3 p = live[i]->point();
            points[3 * i] = p.x, points[3 * i + 1] = p.y, points[3 * i + 2] = p.z;
        }
        evaluate(points, count, values);
        evaluations += count;
        int kept = 0;
        for (int i = 0; i < count; ++i)
            if (live[i]->step(values[i])) live[kept++] = live[i];
        count = kept;
    }
    return evaluations;
}

// Steps longer than safe: `relaxation` times a safe one, or to the root that the slope foretells, `overshoot` times as
// far or the sign might not change yet; unless that is more than `longest_leap` safe steps away.
constexpr float relaxation = 1.5f, overshoot = 1.15f, longest_leap = 4;

// The safe step at a finite value: that of the level just below.
float safe_step(const Tracing& tracing, float value) {
    const float level = std::min(std::abs(value), tracing.max_level) * ((tracing.levels - 1) / tracing.max_level);
    return tracing.steps[static_cast<int>(level)];
}

// Neighbouring rays that take their first steps as one: while a sphere around the middle of their points is empty,
// and larger than their spread, all of them may go on by the difference.
struct Bundle {
    const Tracing* tracing;
    Vector3 begin, direction;     // the means of the rays', so that the middle stays in the ball
    float spread, spread_growth;  // the rays' points lie within spread + t * spread_growth of the middle
    float end, last_end;          // of the rays that end first and last
    float t;
    float slope;  // by which the value falls along the direction, from the last two steps
    float before = 0, value_before = NAN;

    Vector3 point() const { return begin + direction * t; }

    bool step(float value) {
        if (value_before > value) slope = (value_before - value) / (t - before);
        const float radius = spread + t * spread_growth;
        if (!(value > radius)) return false;
        const float clearance = std::min(safe_step(*tracing, value), value) - radius;
        if (!(clearance > 0)) return false;
        if (t + clearance >= last_end) {
            t = last_end;
            return false;
        }
        before = t, value_before = value;
        t = std::min(t + clearance, end);
        return t < end && clearance > 0.5f * radius;
    }
};

// How far a ray has come with others, and their slope.
struct Reached {
    float t = 0, slope = 0;
};

Bundle bundle(const Rays& rays, const Tracing& tracing, std::int64_t first, std::int64_t last,
              Reached reached) {
    Bundle b{&tracing, {}, {}, 0, 0, rays.ends[first], rays.ends[first], reached.t, reached.slope};
    const float share = 1.0f / static_cast<float>(last - first);
    for (std::int64_t i = first; i < last; ++i) {
        b.begin = b.begin + read(rays.begin + 3 * i) * share;
        b.direction = b.direction + read(rays.directions + 3 * i) * share;
        b.end = std::min(b.end, rays.ends[i]);
        b.last_end = std::max(b.last_end, rays.ends[i]);
    }
    b.end = std::max(b.end, b.t);
    for (std::int64_t i = first; i < last; ++i) {
        b.spread = std::max(b.spread, length(read(rays.begin + 3 * i) - b.begin));
        b.spread_growth = std::max(b.spread_growth, length(read(rays.directions + 3 * i) - b.direction));
    }
    return b;
}

// One ray: marches until the sign changes, then narrows the root by regula falsi with Illinois weights.
//
// Safe steps alone creep up on a surface. So a step goes farther: to just past where the slope says that the sign
// changes, or else by half as much again as is safe. If the sign does not change, and the empty spheres at both
// ends do not meet, the step is taken back (Keinert et al. 2014, "Enhanced sphere tracing").
struct Ray {
    const Tracing* tracing;
    std::int64_t index;
    Vector3 begin, direction;
    float end, t;
    float slope;   // by which the value falls along the ray
    bool bundled;  // t is where a bundle brought it, and nothing was evaluated on the ray itself
    bool outside = false, leapt = false, narrowing = false;
    int steps = 0;
    float a = 0, fa = 0, b = 0, fb = 0;  // the bracket; before it is closed, a is the last step's t
    int kept = 0;                        // -1, 1: the end of the bracket kept by the last step was b, a

    Vector3 point() const { return begin + direction * t; }

    bool step(float value) { return narrowing ? narrow(value) : march(value); }

    bool march(float value) {
        const bool inside = value < 0;
        if (bundled && steps == 0) {
            bundled = false;
            if (inside || !std::isfinite(value)) {  // the sphere was not empty: the ray starts over alone
                t = slope = 0;
                return true;
            }
            outside = true;
        } else if (steps == 0) {
            outside = tracing->at_ball[index] && value >= -tracing->touch_depth;
            tracing->buried[index] = inside && tracing->at_ball[index] && !outside;
        }
        if (!std::isfinite(value)) return end_unresolved();
        if (inside && outside) {  // once it has been outside the solid, a negative value is a hit
            tracing->hit[index] = true;
            tracing->t[index] = t;
            b = t, fb = value;
            steps = 0;
            narrowing = t > 0;
            if (narrowing) t = middle();
            return narrowing;
        }
        outside |= !inside;
        if (leapt && t - a > safe_step(*tracing, fa) + std::min(safe_step(*tracing, value), value)) {
            leapt = false;
            t = a + safe_step(*tracing, fa);
        } else {
            if (steps > 0) slope = (fa - value) / (t - a);
            a = t, fa = value;
            const float safe = safe_step(*tracing, value), far = long_step(value, safe);
            leapt = far > safe && t + far < end;
            t += leapt ? far : safe;
        }
        if (!(t < end)) return false;
        return ++steps < tracing->max_steps || end_unresolved();
    }

    float long_step(float value, float safe) const {
        if (!outside || tracing->even) return safe;
        const float root = overshoot * value / slope + tracing->steps[0];
        return slope > 0 && root < longest_leap * safe ? root : relaxation * safe;
    }

    bool end_unresolved() {
        tracing->unresolved[index] = true;
        return false;
    }

    float middle() const { return a + (b - a) * (steps % 3 == 2 ? 0.5f : fa / (fa - fb)); }

    bool narrow(float value) {
        tracing->t[index] = t;
        if (value < 0) {
            b = t, fb = value;
            if (kept > 0) fa *= 0.5f;  // an end kept twice counts half, or the other end would creep
            kept = 1;
        } else {
            a = t, fa = value;
            if (kept < 0) fb *= 0.5f;
            kept = -1;
        }
        if (!(std::abs(value) > tracing->root_tolerance && b - a > tracing->root_tolerance)) return false;
        if (++steps == tracing->root_steps) return false;
        t = middle();
        return true;
    }
};

// A ray to a light: the narrowest cone along it.
struct ShadowRay {
    const SoftShadow* cone;
    float* share;
    Vector3 begin, direction;
    float end, t;
    int steps = 0;

    Vector3 point() const { return begin + direction * t; }

    bool step(float value) {
        const float seen = cone->sharpness * value / t;
        *share = std::isnan(seen) ? seen : std::min(*share, std::max(seen, 0.0f));
        t += std::min(std::max(value, cone->least_step), cone->greatest_step);
        return t < end && *share > cone->dark && ++steps < cone->steps;
    }
};

}  // namespace

std::int64_t trace(const Rays& rays, const Tracing& tracing, std::int64_t first, std::int64_t last,
                   const Evaluate& evaluate, const Stopped& stopped) {
    std::int64_t evaluations = 0;
    std::vector<Reached> reached(last - first);
    std::vector<Bundle> bundles;
    for (const std::int64_t size : {64, 16, 4}) {
        bundles.clear();
        for (std::int64_t at = first; at < last; at += size)
            bundles.push_back(bundle(rays, tracing, at, std::min(at + size, last), reached[at - first]));
        evaluations += walk(bundles, evaluate, stopped);
        for (std::int64_t i = first; i < last; ++i) {
            const Bundle& b = bundles[(i - first) / size];
            reached[i - first] = {b.t, b.slope};
        }
    }
    std::vector<Ray> alone;
    alone.reserve(last - first);
    for (std::int64_t i = first; i < last; ++i) {
        const auto [t, slope] = reached[i - first];
        if (t > 0 && !(t < rays.ends[i])) continue;
        alone.push_back({&tracing, i, read(rays.begin + 3 * i), read(rays.directions + 3 * i), rays.ends[i], t, slope,
                         t > 0});
    }
    return evaluations + walk(alone, evaluate, stopped);
}

std::int64_t soft_shadow(const Rays& rays, const SoftShadow& cone, std::int64_t first, std::int64_t last,
                         const Evaluate& evaluate, const Stopped& stopped) {
    std::vector<ShadowRay> alone;
    alone.reserve(last - first);
    for (std::int64_t i = first; i < last; ++i)
        if (cone.first < rays.ends[i])
            alone.push_back({&cone, cone.share + i, read(rays.begin + 3 * i), read(rays.directions + 3 * i),
                             rays.ends[i], cone.first});
    return walk(alone, evaluate, stopped);
}

}  // namespace neuralsdf

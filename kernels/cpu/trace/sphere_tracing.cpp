#include "cpu/trace/sphere_tracing.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "cpu/mlp/weight_layout.h"

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

// Advances walkers until they finish, in full blocks: a walker that finishes is replaced by the next one.
// `next(walker)` initialises a walker, or returns false if there are no more. `point()` of a walker is its next
// evaluation point, and `step(value)` advances it, or returns false if it has finished. Returns the number of
// evaluations.
template <class Walker, class Next>
std::int64_t walk(Next next, int batch, const Evaluate& evaluate, const Stopped& stopped) {
    std::vector<Walker> live(batch);
    std::vector<float> points(3 * batch), values(batch);
    std::int64_t evaluations = 0;
    int count = 0;
    while (count < batch && next(live[count])) ++count;
    while (count > 0 && !stopped()) {
        for (int i = 0; i < count; ++i) {
            const Vector3 p = live[i].point();
            points[3 * i] = p.x, points[3 * i + 1] = p.y, points[3 * i + 2] = p.z;
        }
        evaluate(points.data(), count, values.data());
        evaluations += count;
        for (int i = count; i-- > 0;)
            if (!live[i].step(values[i]) && !next(live[i])) live[i] = live[--count];
    }
    return evaluations;
}

// Over-relaxed steps: `relaxation` times a safe step; or `overshoot` times the step to the root that the slope
// predicts, so that the sign changes, if that is at most `longest_leap` safe steps.
constexpr float relaxation = 1.5f, overshoot = 1.15f, longest_leap = 4;

// The safe step at a value that is not NaN, interpolated linearly between levels.
float safe_step(const Tracing& tracing, float value) {
    const float level = std::min(std::abs(value), tracing.max_level) * ((tracing.levels - 1) / tracing.max_level);
    const int below = std::min(static_cast<int>(level), tracing.levels - 2);
    const float low = tracing.steps[below], high = tracing.steps[below + 1];
    return low + (level - static_cast<float>(below)) * (high - low);
}

// A bundle of neighbouring rays. Their points at t are within spread + t * spread_growth of the middle.
struct Bundle {
    Vector3 begin, direction;  // means over the rays, so that the middle stays in the ball
    float spread, spread_growth;
    float end, last_end;  // minimum and maximum over the rays

    Vector3 middle(float t) const { return begin + direction * t; }
};

constexpr int bundled_at_once = 4;

// Combines groups of four of `count` rays or smaller bundles, `part(i)`, into bundles.
template <class Part>
std::vector<Bundle> bundles_of(std::int64_t count, const Part& part) {
    std::vector<Bundle> bundles;
    bundles.reserve((count + bundled_at_once - 1) / bundled_at_once);
    for (std::int64_t first = 0; first < count; first += bundled_at_once) {
        const int size = static_cast<int>(std::min<std::int64_t>(bundled_at_once, count - first));
        Bundle parts[bundled_at_once] = {};
        for (int i = 0; i < size; ++i) parts[i] = part(first + i);
        Bundle all{{}, {}, 0, 0, parts[0].end, parts[0].last_end};
        for (int i = 0; i < size; ++i) {
            all.begin = all.begin + parts[i].begin * (1.0f / size);
            all.direction = all.direction + parts[i].direction * (1.0f / size);
            all.end = std::min(all.end, parts[i].end);
            all.last_end = std::max(all.last_end, parts[i].last_end);
        }
        for (int i = 0; i < size; ++i) {
            const Bundle& p = parts[i];
            all.spread = std::max(all.spread, length(p.begin - all.begin) + p.spread);
            all.spread_growth = std::max(all.spread_growth, length(p.direction - all.direction) + p.spread_growth);
        }
        bundles.push_back(all);
    }
    return bundles;
}

// The ray parameter that the rays of a bundle have reached, and the decrease of the value per unit in the last step.
struct Reached {
    float t = 0, slope = 0;
};

// Advances a bundle as a whole: while the empty sphere around the middle is larger than the spread, all rays can
// advance by the difference.
struct BundleWalk {
    const Tracing* tracing;
    const Bundle* bundle;
    Reached* reached;
    float before = 0, value_before = NAN;
    int steps = 0;

    Vector3 point() const { return bundle->middle(reached->t); }

    bool step(float value) {
        float& t = reached->t;
        if (value_before > value) reached->slope = (value_before - value) / (t - before);
        const float radius = bundle->spread + t * bundle->spread_growth;
        if (!(value > radius)) return false;
        const float clearance = std::min(safe_step(*tracing, value), value) - radius;
        if (!(clearance > 0)) return false;
        if (t + clearance >= bundle->last_end) {
            t = bundle->last_end;
            return false;
        }
        before = t, value_before = value;
        t = std::min(t + clearance, std::max(t, bundle->end));
        return t < bundle->end && clearance > std::max(0.5f * radius, tracing->steps[0]) &&
               ++steps < tracing->max_steps;  // at a large t, a step may be lost to rounding
    }
};

// Advances bundles, starting from the positions `together` of the larger bundles.
std::vector<Reached> walk_bundles(const std::vector<Bundle>& bundles, const std::vector<Reached>& together,
                                  const Tracing& tracing, int batch, const Evaluate& evaluate, const Stopped& stopped,
                                  std::int64_t& evaluations) {
    std::vector<Reached> reached(bundles.size());
    std::size_t waiting = 0;
    evaluations += walk<BundleWalk>([&](BundleWalk& next) {
        for (; waiting < bundles.size(); ++waiting) {
            if (!together.empty()) reached[waiting] = together[waiting / bundled_at_once];
            if (!(reached[waiting].t < bundles[waiting].last_end)) continue;
            next = {&tracing, &bundles[waiting], &reached[waiting]};
            ++waiting;
            return true;
        }
        return false;
    }, batch, evaluate, stopped);
    return reached;
}

// A single ray: marches until the sign changes, then refines the root by regula falsi with Illinois weights.
//
// Safe steps converge slowly to a surface. So a step is longer: to just beyond the root that the slope predicts, or
// otherwise 1.5 times the safe step. If the sign does not change, and the empty spheres at both ends do not overlap,
// the step is undone (Keinert et al. 2014, "Enhanced sphere tracing").
struct Ray {
    const Tracing* tracing;
    std::int64_t index;
    Vector3 begin, direction;
    float end, t;
    float slope;   // decrease of the value per unit of t
    bool bundled;  // t was reached by a bundle, without an evaluation on the ray itself
    bool outside = false, leapt = false, narrowing = false;
    int steps = 0;
    float a = 0, fa = 0, b = 0, fb = 0;  // the bracket; during marching, a is the t of the last step
    int kept = 0;                        // -1, 1: the last step kept b, a

    Vector3 point() const { return begin + direction * t; }

    bool step(float value) { return narrowing ? narrow(value) : march(value); }

    bool march(float value) {
        const bool inside = value < 0;
        if (bundled && steps == 0) {
            bundled = false;
            if (inside || !std::isfinite(value)) {  // the sphere was not empty: restart this ray alone
                t = slope = 0;
                return true;
            }
            outside = true;
        } else if (steps == 0) {
            outside = tracing->at_ball[index] && value >= -tracing->touch_depth;
            tracing->buried[index] = inside && tracing->at_ball[index] && !outside;
        }
        if (!std::isfinite(value)) return end_unresolved();
        if (inside && outside) {  // after the ray has been outside the solid, a negative value is a hit
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

    float middle() const { return a + (b - a) * (steps % 4 == 3 ? 0.5f : fa / (fa - fb)); }

    bool narrow(float value) {
        tracing->t[index] = t;
        if (value < 0) {
            b = t, fb = value;
            if (kept > 0) fa *= 0.5f;  // Illinois: halve the value of an end that was kept twice
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

// A ray to a light: finds the narrowest cone along it.
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
        t += std::min(std::max(value, cone->min_step), cone->max_step);
        return t < end && *share > cone->dark && ++steps < cone->steps;
    }
};

}  // namespace

std::int64_t trace(const Rays& rays, const Tracing& tracing, std::int64_t first, std::int64_t last, int batch,
                   const Evaluate& evaluate, const Stopped& stopped) {
    const auto ray = [&](std::int64_t i) {
        const std::int64_t at = first + i;
        return Bundle{read(rays.begin + 3 * at), read(rays.directions + 3 * at), 0, 0, rays.ends[at], rays.ends[at]};
    };
    const auto bundles_of_bundles = [](const std::vector<Bundle>& parts) {
        return bundles_of(static_cast<std::int64_t>(parts.size()), [&](std::int64_t i) { return parts[i]; });
    };
    const std::vector<Bundle> of_4 = bundles_of(last - first, ray), of_16 = bundles_of_bundles(of_4),
                              of_64 = bundles_of_bundles(of_16);
    std::int64_t evaluations = 0;
    std::vector<Reached> reached;
    for (const auto* bundles : {&of_64, &of_16, &of_4})
        reached = walk_bundles(*bundles, reached, tracing, batch, evaluate, stopped, evaluations);
    std::int64_t waiting = first;
    const auto next = [&](Ray& ray) {
        for (; waiting < last; ++waiting) {
            const auto [t, slope] = reached[(waiting - first) / bundled_at_once];
            const float end = rays.ends[waiting];
            if (t > 0 && !(t < end)) continue;
            ray = {&tracing, waiting, read(rays.begin + 3 * waiting), read(rays.directions + 3 * waiting), end, t,
                   slope,    t > 0};
            ++waiting;
            return true;
        }
        return false;
    };
    return evaluations + walk<Ray>(next, batch, evaluate, stopped);
}

std::int64_t soft_shadow(const Rays& rays, const SoftShadow& cone, std::int64_t first, std::int64_t last, int batch,
                         const Evaluate& evaluate, const Stopped& stopped) {
    std::int64_t waiting = first;
    const auto next = [&](ShadowRay& ray) {
        while (waiting < last && !(cone.first < rays.ends[waiting])) ++waiting;
        if (waiting == last) return false;
        ray = {&cone,
               cone.share + waiting,
               read(rays.begin + 3 * waiting),
               read(rays.directions + 3 * waiting),
               rays.ends[waiting],
               cone.first};
        ++waiting;
        return true;
    };
    return walk<ShadowRay>(next, batch, evaluate, stopped);
}

}  // namespace neuralsdf

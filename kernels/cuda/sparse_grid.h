// sparse_grid.h
// A field on a sparse grid (neuralsdf/grid), with one thread per cell or grid point: coordinates of keys, sets of keys,
// and marching cubes. Keys are in ascending order, so that the index of a key is found by binary search, and
// neighbouring threads access similar addresses. Items are counted by a prefix sum rather than by atomic additions, so
// that cells, vertices and faces are in the order of their keys, as in kernels/cpu/grid/sparse_grid.cpp.
#pragma once

#include "../shared/marching_cubes.h"
#include "thread_block.h"

namespace neuralsdf {
namespace gpu {

using Key = long long;

struct Keys {
    const Key* keys;  // ascending
    long long count;  // less than 2^31
};

// Calls `visit` with each of `count` indices, one per thread.
template <class Visit>
NEURALSDF_DEVICE void each_item(const Block& block, long long count, Visit visit) {
    block.each([&](int thread) {
        const long long i = static_cast<long long>(block.index()) * block.threads() + thread;
        if (i < count) visit(i);
    });
}

// Index of the first key that is not less than `key`.
NEURALSDF_DEVICE long long place(const Keys& among, Key key) {
    unsigned low = 0, high = static_cast<unsigned>(among.count);
    while (low < high) {
        const unsigned middle = (low + high) / 2;
        if (among.keys[middle] < key)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

NEURALSDF_DEVICE bool contains(const Keys& among, Key key) {
    const long long at = place(among, key);
    return at < among.count && among.keys[at] == key;
}

// -- points and values ---------------------------------------------------------------------------------------

// Products that are rounded before they are added (no fused multiply-add), so that points are equal to those of the
// CPU.
#ifdef __CUDACC__
NEURALSDF_DEVICE double product(double a, double b) { return __dmul_rn(a, b); }
#else
NEURALSDF_DEVICE double product(double a, double b) { return a * b; }
#endif

// Closest points of the unit ball to grid points, and the distances of the grid points to the ball.
struct BallPoints {
    const Key* keys;
    float* points;  // (count, 3)
    float* beyond;  // (count,), negative inside the ball
    long long count, side;
    double spacing, offset;  // `offset` is added to subscripts
};

NEURALSDF_DEVICE void ball_points(const Block& block, const BallPoints& a) {
    each_item(block, a.count, [&](long long i) {
        const Key key = a.keys[i], subscripts[3] = {key / a.side / a.side, key / a.side % a.side, key % a.side};
        double x[3], squared = 0;
        NEURALSDF_UNROLL for (int axis = 0; axis < 3; ++axis) {
            x[axis] = product(static_cast<double>(subscripts[axis]) + a.offset, a.spacing) - (1 + a.spacing);
            squared += product(x[axis], x[axis]);
        }
        const double radius = sqrt(squared), shrink = radius > 1 ? radius : 1;
        NEURALSDF_UNROLL for (int axis = 0; axis < 3; ++axis)
            a.points[3 * i + axis] = static_cast<float>(x[axis] / shrink);
        a.beyond[i] = static_cast<float>(radius - 1);
    });
}

// Values of a field at points of the ball. For grid points, they are replaced by those of the intersection of the solid
// and the ball. For centres of cells, cells that may contain its surface are marked.
struct BallValues {
    float* values;        // (count,)
    const float* beyond;  // (count,)
    float* lowest;        // (blocks,) minima of the field minus the level
    long long count;
    float level;
    unsigned* marks;          // (count,), or unused
    double reach, lipschitz;  // half the diagonal of a cell, and the Lipschitz constant of the field; or unused
};

// A value for the minimum. Values that are not finite become -infinity, so that the minimum shows them.
NEURALSDF_DEVICE float counted(float value) {
    return value >= -3.402823466e38f && value <= 3.402823466e38f ? value : -INFINITY;
}

// Writes the minimum of `value` over the items of a block. Shared memory: one float per thread.
template <class Value>
NEURALSDF_DEVICE void write_lowest(const Block& block, const BallValues& a, Value value) {
    float* const lowest = block.shared;
    block.each([&](int thread) { lowest[thread] = INFINITY; });
    each_item(block, a.count, [&](long long i) { lowest[i % block.threads()] = value(i); });
    for (int half = block.threads() / 2; half > 0; half /= 2)
        block.each([&](int thread) {
            if (thread < half && lowest[thread + half] < lowest[thread]) lowest[thread] = lowest[thread + half];
        });
    block.each([&](int thread) {
        if (thread == 0) a.lowest[block.index()] = lowest[0];
    });
}

NEURALSDF_DEVICE void solid_values(const Block& block, const BallValues& a) {
    write_lowest(block, a, [&](long long i) {
        const float value = a.values[i] - a.level, beyond = a.beyond[i];
        a.values[i] = value > beyond ? value : beyond;
        return counted(value);
    });
}

// A cell may contain the surface unless it is entirely outside of the solid or of the ball, or entirely inside of both.
NEURALSDF_DEVICE void mark_holding(const Block& block, const BallValues& a) {
    const double change = product(a.lipschitz, a.reach);
    write_lowest(block, a, [&](long long i) {
        const float value = a.values[i] - a.level;
        const double beyond = a.beyond[i];
        const bool meets_ball = beyond < a.reach;
        const bool inside = value < -change && beyond < -a.reach;
        a.marks[i] = meets_ball && !(value > change) && !inside;
        return meets_ball ? counted(value) : INFINITY;
    });
}

// -- sets of keys --------------------------------------------------------------------------------------------

// Exclusive prefix sum of counts, with the total at the end. First each block sums a tile, then one block scans the
// sums of the tiles, then each block scans a tile.
struct Scan {
    unsigned* counts;  // (count + 1,), the last one is not read
    unsigned* sums;    // (tiles,)
    long long count, tiles;
};

constexpr int scanned_together = 8;  // items per thread

// Calls `visit` with the indices of the items of a thread in a tile.
template <class Visit>
NEURALSDF_DEVICE void each_scanned(const Block& block, int thread, long long tile, long long count, Visit visit) {
    const long long first = (tile * block.threads() + thread) * scanned_together;
    for (long long i = first; i < first + scanned_together && i < count; ++i) visit(i);
}

// Computes the sum of the items of the preceding threads in a tile, and of the whole tile. Shared memory: one int per
// warp.
NEURALSDF_DEVICE void sum_tile(const Block& block, const unsigned* items, long long tile, long long count,
                               PerThread<int>& before, PerThread<int>& total) {
    PerThread<int> own, in_warp, of_warp;
    block.each([&](int thread) {
        int sum = 0;
        each_scanned(block, thread, tile, count, [&](long long i) { sum += static_cast<int>(items[i]); });
        own[thread] = sum;
    });
    block.sum_before(own, in_warp, of_warp);
    int* const warps = reinterpret_cast<int*>(block.shared);
    block.each([&](int thread) {
        if (thread % warp_threads == 0) warps[thread / warp_threads] = of_warp[thread];
    });
    block.each([&](int thread) {
        before[thread] = in_warp[thread];
        total[thread] = 0;
        for (int warp = 0; warp < block.threads() / warp_threads; ++warp) {
            if (warp < thread / warp_threads) before[thread] = before[thread] + warps[warp];
            total[thread] = total[thread] + warps[warp];
        }
    });
}

NEURALSDF_DEVICE void scan_sums(const Block& block, const Scan& a) {
    PerThread<int> before, total;
    sum_tile(block, a.counts, block.index(), a.count, before, total);
    block.each([&](int thread) {
        if (thread == 0) a.sums[block.index()] = static_cast<unsigned>(total[thread]);
    });
}

NEURALSDF_DEVICE void scan_tiles(const Block& block, const Scan& a) {
    PerThread<unsigned> sum;
    block.each([&](int thread) { sum[thread] = 0; });
    for (long long tile = 0; tile * block.threads() * scanned_together < a.tiles; ++tile) {
        PerThread<int> before, total;
        sum_tile(block, a.sums, tile, a.tiles, before, total);
        block.each([&](int thread) {
            unsigned next = sum[thread] + static_cast<unsigned>(before[thread]);
            each_scanned(block, thread, tile, a.tiles, [&](long long i) {
                const unsigned item = a.sums[i];
                a.sums[i] = next;
                next += item;
            });
            sum[thread] = sum[thread] + static_cast<unsigned>(total[thread]);
        });
    }
}

NEURALSDF_DEVICE void scan_counts(const Block& block, const Scan& a) {
    PerThread<int> before, total;
    sum_tile(block, a.counts, block.index(), a.count, before, total);
    block.each([&](int thread) {
        unsigned next = a.sums[block.index()] + static_cast<unsigned>(before[thread]);
        each_scanned(block, thread, block.index(), a.count + 1, [&](long long i) {
            const unsigned item = i < a.count ? a.counts[i] : 0;
            a.counts[i] = next;
            next += item;
        });
    });
}

// Selects the keys whose count is not zero.
struct Selection {
    const Key* keys;
    const unsigned* before;  // (count + 1,)
    Key* selected;
    long long count;
};

NEURALSDF_DEVICE void select_keys(const Block& block, const Selection& a) {
    each_item(block, a.count, [&](long long i) {
        if (a.before[i + 1] != a.before[i]) a.selected[a.before[i]] = a.keys[i];
    });
}

// The union of keys and others, the latter shifted by `offset`, with their values. Keys that are in both occur once.
struct Union {
    Keys keys, others;
    Key offset;
    unsigned* fresh;  // (others + 1,), 1 if the other key is not in `keys`; then the prefix sum
    Key* all;
    const float *values, *other_values;  // or null
    float* all_values;
};

NEURALSDF_DEVICE void mark_fresh(const Block& block, const Union& a) {
    each_item(block, a.others.count,
              [&](long long i) { a.fresh[i] = !contains(a.keys, a.others.keys[i] + a.offset); });
}

NEURALSDF_DEVICE void unite(const Block& block, const Union& a) {
    each_item(block, a.keys.count + a.others.count, [&](long long i) {
        const bool other = i >= a.keys.count;
        const long long at = other ? i - a.keys.count : i;
        if (other && a.fresh[at + 1] == a.fresh[at]) return;
        const Key key = other ? a.others.keys[at] + a.offset : a.keys.keys[at];
        const long long to = other ? a.fresh[at] + place(a.keys, key) : at + a.fresh[place(a.others, key - a.offset)];
        a.all[to] = key;
        if (a.values) a.all_values[to] = other ? a.other_values[at] : a.values[at];
    });
}

// -- cells ---------------------------------------------------------------------------------------------------

// Cells, and grid points that include all corners of the cells.
struct CellSamples {
    Keys cells, points;
    const float* values;  // values of the points
    long long side;
};

// Indices of the corners of a cell: four rows of two consecutive points along z.
struct Corners {
    long long rows[4];

    NEURALSDF_DEVICE Corners(const CellSamples& a, Key cell) {
        NEURALSDF_UNROLL for (int row = 0; row < 4; ++row)
            rows[row] = place(a.points, cell + (row >> 1) * a.side * a.side + (row & 1) * a.side);
    }

    NEURALSDF_DEVICE long long operator[](int corner) const {
        return rows[2 * corner_x(corner) + corner_y(corner)] + corner_z(corner);
    }

    // The code of a cell: a bit for each corner that is inside.
    NEURALSDF_DEVICE std::uint8_t code(const float* values) const {
        int code = 0;
        NEURALSDF_UNROLL for (int corner = 0; corner < 8; ++corner) code |= (values[(*this)[corner]] < 0) << corner;
        return static_cast<std::uint8_t>(code);
    }
};

struct Crossed {
    CellSamples samples;
    unsigned* marks;  // (cells,), whether the signs of the corners differ
};

NEURALSDF_DEVICE void mark_crossed(const Block& block, const Crossed& a) {
    each_item(block, a.samples.cells.count, [&](long long i) {
        const int code = Corners(a.samples, a.samples.cells.keys[i]).code(a.samples.values);
        a.marks[i] = code > 0 && code < 255;
    });
}

// Neighbours of cells, across faces whose corners differ in sign, that are not in `known`.
struct Missed {
    CellSamples samples;
    Keys known;
    unsigned* counts;  // (cells,), then the prefix sum
    Key* missed;
};

template <class Visit>
NEURALSDF_DEVICE void each_missed(const Missed& a, Key cell, Visit visit) {
    const int code = Corners(a.samples, cell).code(a.samples.values);
    for (int axis = 0; axis < 3; ++axis) {
        const int upper = axis == 0 ? 0x66 : axis == 1 ? 0xCC : 0xF0;  // the corners of the upper face
        const Key step = axis == 0 ? a.samples.side * a.samples.side : axis == 1 ? a.samples.side : 1;
        for (int sign = 1; sign >= -1; sign -= 2) {
            const int face = sign > 0 ? upper : 0xFF - upper, inside = code & face;
            const Key neighbour = cell + sign * step;
            if (inside != 0 && inside != face && !contains(a.known, neighbour)) visit(neighbour);
        }
    }
}

NEURALSDF_DEVICE void count_missed(const Block& block, const Missed& a) {
    each_item(block, a.samples.cells.count, [&](long long i) {
        unsigned count = 0;
        each_missed(a, a.samples.cells.keys[i], [&](Key) { ++count; });
        a.counts[i] = count;
    });
}

NEURALSDF_DEVICE void list_missed(const Block& block, const Missed& a) {
    each_item(block, a.samples.cells.count, [&](long long i) {
        Key* to = a.missed + a.counts[i];
        each_missed(a, a.samples.cells.keys[i], [&](Key neighbour) { *to++ = neighbour; });
    });
}

// -- marching cubes ------------------------------------------------------------------------------------------

struct MarchingCubes {
    CellSamples samples;
    unsigned* edges;      // (3 points,), zeros; set to 1 for edges with a vertex; then the prefix sum
    unsigned* triangles;  // (cells,), number of triangles; then the prefix sum
    double* vertices;     // in units of the grid, of `count` points
    long long* faces;     // of `count` cells
    long long first, count;
    double margin;  // minimum distance of vertices from the ends of edges
};

// Calls `visit` with the edge number of every corner of every triangle of a cell; returns the number of triangles.
template <class Visit>
NEURALSDF_DEVICE unsigned each_triangle_corner(const CellSamples& a, Key cell, Visit visit) {
    const Corners corners(a, cell);
    const char* const digits = case_triangles(corners.code(a.values));
    int i = 0;
    for (; digits[i]; ++i) {
        const int edge = edge_of_digit(digits[i]);
        visit(3 * corners[edge_corner(edge)] + edge_axis(edge));
    }
    return static_cast<unsigned>(i / 3);
}

// All cells around an edge write the same word.
NEURALSDF_DEVICE void mark_vertices(const Block& block, const MarchingCubes& a) {
    each_item(block, a.samples.cells.count, [&](long long i) {
        a.triangles[i] =
            each_triangle_corner(a.samples, a.samples.cells.keys[i], [&](long long edge) { a.edges[edge] = 1; });
    });
}

NEURALSDF_DEVICE void place_vertices(const Block& block, const MarchingCubes& a) {
    const long long side = a.samples.side, strides[3] = {side * side, side, 1};
    each_item(block, a.count, [&](long long i) {
        const long long point = a.first + i;
        const Key key = a.samples.points.keys[point];
        for (int axis = 0; axis < 3; ++axis) {
            const unsigned* const number = a.edges + 3 * point + axis;
            if (number[1] == number[0]) continue;
            const float end = a.samples.values[place(a.samples.points, key + strides[axis])];
            const double along = crossing(a.samples.values[point], end, a.margin);
            double* const vertex = a.vertices + 3LL * (number[0] - a.edges[3 * a.first]);
            vertex[0] = static_cast<double>(key / strides[0]) + (axis == 0 ? along : 0);
            vertex[1] = static_cast<double>(key / strides[1] % side) + (axis == 1 ? along : 0);
            vertex[2] = static_cast<double>(key % side) + (axis == 2 ? along : 0);
        }
    });
}

NEURALSDF_DEVICE void write_faces(const Block& block, const MarchingCubes& a) {
    each_item(block, a.count, [&](long long i) {
        long long* corner = a.faces + 3LL * (a.triangles[a.first + i] - a.triangles[a.first]);
        each_triangle_corner(a.samples, a.samples.cells.keys[a.first + i],
                             [&](long long edge) { *corner++ = a.edges[edge]; });
    });
}

}  // namespace gpu
}  // namespace neuralsdf

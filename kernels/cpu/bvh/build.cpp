// Builds the tree top-down. The part of a node with the largest surface area is split in two at the cheapest plane of
// the binned surface area heuristic (Wald 2007), until the node has eight children. The moments are summed bottom-up.
#include "cpu/bvh/build.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace neuralsdf {
namespace {

constexpr int bin_count = 16;
constexpr float no_room = std::numeric_limits<float>::max();

struct Box {
    float low[3] = {no_room, no_room, no_room}, high[3] = {-no_room, -no_room, -no_room};

    void include(const Box& other) {
        for (int axis = 0; axis < 3; ++axis) {
            low[axis] = std::min(low[axis], other.low[axis]);
            high[axis] = std::max(high[axis], other.high[axis]);
        }
    }
    float area() const {
        const float x = high[0] - low[0], y = high[1] - low[1], z = high[2] - low[2];
        return x * y + y * z + z * x;
    }
};

struct Reference {
    Box box;
    std::int32_t face;

    float centre(int axis) const { return box.low[axis] + box.high[axis]; }  // twice the centre
};

// A range of references, which becomes a child of a node.
struct Part {
    std::int64_t first, last;
    Box box;

    std::int64_t size() const { return last - first; }
};

// Integrals over a surface with normal n and points x, about the origin.
struct Moments {
    double area = 0, first[3] = {};  // integrals of 1 and x
    double dipole[3] = {};           // n
    double quadrupole[3][3] = {};    // n_i x_j
    double octupole[3][6] = {};      // n_i x_j x_k; jk: xx yy zz xy xz yz

    void add(const Moments& other) {
        constexpr int count = sizeof(Moments) / sizeof(double);
        double sum[count], term[count];
        std::memcpy(sum, this, sizeof sum);
        std::memcpy(term, &other, sizeof term);
        for (int i = 0; i < count; ++i) sum[i] += term[i];
        std::memcpy(static_cast<void*>(this), sum, sizeof sum);
    }
};

constexpr int pairs[6][2] = {{0, 0}, {1, 1}, {2, 2}, {0, 1}, {0, 2}, {1, 2}};

Moments moments(const double corner[3][3]) {
    double u[3], v[3], sum[3];
    for (int axis = 0; axis < 3; ++axis) {
        u[axis] = corner[1][axis] - corner[0][axis];
        v[axis] = corner[2][axis] - corner[0][axis];
        sum[axis] = corner[0][axis] + corner[1][axis] + corner[2][axis];
    }
    const double normal[3] = {0.5 * (u[1] * v[2] - u[2] * v[1]), 0.5 * (u[2] * v[0] - u[0] * v[2]),
                              0.5 * (u[0] * v[1] - u[1] * v[0])};
    Moments m;
    m.area = std::sqrt(normal[0] * normal[0] + normal[1] * normal[1] + normal[2] * normal[2]);
    for (int i = 0; i < 3; ++i) {
        m.first[i] = m.area * sum[i] / 3;
        m.dipole[i] = normal[i];
        for (int j = 0; j < 3; ++j) m.quadrupole[i][j] = normal[i] * sum[j] / 3;
        for (int jk = 0; jk < 6; ++jk) {
            const int j = pairs[jk][0], k = pairs[jk][1];
            double product = sum[j] * sum[k];
            for (int c = 0; c < 3; ++c) product += corner[c][j] * corner[c][k];
            m.octupole[i][jk] = normal[i] * product / 12;
        }
    }
    return m;
}

// Writes the expansion of a child with these moments and this box, about its centroid.
void expand(const Moments& m, const Box& box, Expansion& e, int lane) {
    float* const out = &e.centre[0][0] + lane;  // an expansion consists of rows of eight floats
    double centre[3], squared_radius = 0;
    for (int axis = 0; axis < 3; ++axis) {
        const double middle = 0.5 * (static_cast<double>(box.low[axis]) + box.high[axis]);
        const double mean = m.area > 0 ? m.first[axis] / m.area : middle;
        centre[axis] = static_cast<float>(std::min<double>(std::max<double>(mean, box.low[axis]), box.high[axis]));
        const double reach = std::max(box.high[axis] - centre[axis], centre[axis] - box.low[axis]);
        squared_radius += reach * reach;
    }
    double q[3][3], o[3][6];
    for (int i = 0; i < 3; ++i) {
        for (int j = 0; j < 3; ++j) q[i][j] = m.quadrupole[i][j] - m.dipole[i] * centre[j];
        for (int jk = 0; jk < 6; ++jk) {
            const int j = pairs[jk][0], k = pairs[jk][1];
            o[i][jk] =
                m.octupole[i][jk] - q[i][j] * centre[k] - q[i][k] * centre[j] - m.dipole[i] * centre[j] * centre[k];
        }
    }
    const double trace = (q[0][0] + q[1][1] + q[2][2]) / 3;
    const double quadrupole[6] = {q[0][0] - trace,   q[1][1] - trace,   q[2][2] - trace,
                                  q[0][1] + q[1][0], q[0][2] + q[2][0], q[1][2] + q[2][1]};
    double octupole[10] = {o[0][0],
                           o[1][1],
                           o[2][2],
                           2 * o[0][3] + o[1][0],
                           2 * o[0][4] + o[2][0],
                           2 * o[1][3] + o[0][1],
                           2 * o[1][5] + o[2][1],
                           2 * o[2][4] + o[0][2],
                           2 * o[2][5] + o[1][2],
                           2 * (o[0][5] + o[1][4] + o[2][3])};
    // Subtract multiples of x (x^2 + y^2 + z^2) and the like, which removes the trace.
    const double tx = 0.6 * octupole[0] + 0.2 * (octupole[5] + octupole[7]);
    const double ty = 0.6 * octupole[1] + 0.2 * (octupole[3] + octupole[8]);
    const double tz = 0.6 * octupole[2] + 0.2 * (octupole[4] + octupole[6]);
    const double traces[10] = {tx, ty, tz, ty, tz, tx, tz, tx, ty, 0};
    int row = 0;
    const auto put = [&](double value) { out[fan_out * row++] = static_cast<float>(value); };
    for (const double c : centre) put(c);
    put(squared_radius);
    for (const double d : m.dipole) put(d / (4 * M_PI));
    for (const double value : quadrupole) put(-3 * value / (4 * M_PI));
    for (int i = 0; i < 10; ++i) put(7.5 * (octupole[i] - traces[i]) / (4 * M_PI));
}

class Builder {
  public:
    Builder(const double* vertices, const std::int64_t* faces, const Tree& space, std::vector<Reference>& references,
            std::vector<Node>& nodes, std::vector<Expansion>& expansions, std::vector<Packet>& packets)
        : vertices_(vertices),
          faces_(faces),
          space_(space),
          references_(references),
          nodes_(nodes),
          expansions_(expansions),
          packets_(packets) {}

    Moments build(const Part& whole, int level) {
        Part parts[fan_out] = {whole};
        int count = 1;
        for (; count < fan_out; ++count) {
            int largest = -1;
            for (int i = 0; i < count; ++i)
                if (parts[i].size() > packet && (largest < 0 || parts[i].box.area() > parts[largest].box.area()))
                    largest = i;
            if (largest < 0) break;
            cut(parts[largest], parts[count], level);
        }
        const auto index = static_cast<std::int32_t>(nodes_.size());
        nodes_.emplace_back();
        expansions_.emplace_back();
        std::memset(static_cast<void*>(&expansions_[index]), 0, sizeof(Expansion));
        for (int i = 0; i < fan_out; ++i) put(nodes_[index], i, i < count ? parts[i].box : Box(), 0);
        nodes_[index].count = count;
        Moments sum;
        for (int i = 0; i < count; ++i) {
            const bool leaf = parts[i].size() <= packet;
            nodes_[index].child[i] = static_cast<std::int32_t>(leaf ? ~packets_.size() : nodes_.size());
            const Moments m = leaf ? make_packet(parts[i]) : build(parts[i], level + 1);
            expand(m, parts[i].box, expansions_[index], i);
            sum.add(m);
        }
        return sum;
    }

    Part part(std::int64_t first, std::int64_t last) const {
        Part part{first, last, Box()};
        for (std::int64_t i = first; i < last; ++i) part.box.include(references_[i].box);
        return part;
    }

  private:
    static void put(Node& node, int lane, const Box& box, std::int32_t child) {
        for (int axis = 0; axis < 3; ++axis) {
            node.low[axis][lane] = box.low[axis];
            node.high[axis][lane] = box.high[axis];
        }
        node.child[lane] = child;
    }

    // Splits `part`: it keeps the first half, and the second half is written to `rest`.
    void cut(Part& part, Part& rest, int level) {
        float low[3], high[3];
        std::fill(low, low + 3, no_room);
        std::fill(high, high + 3, -no_room);
        for (std::int64_t i = part.first; i < part.last; ++i)
            for (int axis = 0; axis < 3; ++axis) {
                low[axis] = std::min(low[axis], references_[i].centre(axis));
                high[axis] = std::max(high[axis], references_[i].centre(axis));
            }
        int axis = 0;
        for (int a = 1; a < 3; ++a)
            if (high[a] - low[a] > high[axis] - low[axis]) axis = a;
        const float scale = bin_count * 0.99999f / (high[axis] - low[axis]);
        const auto bin = [&](const Reference& r) { return static_cast<int>((r.centre(axis) - low[axis]) * scale); };

        std::int64_t middle = (part.first + part.last) / 2;
        Box left, right;
        if (level < most_levels && high[axis] > low[axis] && std::isfinite(scale)) {
            const int before = cheapest_cut(part, bin, left, right);
            const auto begin = references_.begin();
            middle = std::partition(begin + part.first, begin + part.last, [&](const Reference& r) {
                return bin(r) < before;
            }) - begin;
            rest = {middle, part.last, right};
            part = {part.first, middle, left};
        } else {
            std::nth_element(
                references_.begin() + part.first, references_.begin() + middle, references_.begin() + part.last,
                [axis](const Reference& a, const Reference& b) { return a.centre(axis) < b.centre(axis); });
            rest = this->part(middle, part.last);
            part = this->part(part.first, middle);
        }
    }

    // Returns the first bin of the second half, and the boxes of both halves. The outer bins are never empty.
    template <class Bin>
    int cheapest_cut(const Part& part, const Bin& bin, Box& left, Box& right) const {
        struct {
            Box box;
            std::int64_t size = 0;
        } bins[bin_count];
        for (std::int64_t i = part.first; i < part.last; ++i) {
            auto& into = bins[bin(references_[i])];
            into.box.include(references_[i].box);
            ++into.size;
        }
        const auto cost = [](const Box& box, std::int64_t size) {
            return box.area() * static_cast<float>((size + packet - 1) / packet);
        };
        float costs[bin_count];
        Box boxes[bin_count], box;
        std::int64_t size = 0;
        for (int i = bin_count - 1; i > 0; --i) {
            box.include(bins[i].box);
            boxes[i] = box;
            costs[i] = cost(box, size += bins[i].size);
        }
        int best = 1;
        float lowest = std::numeric_limits<float>::infinity();
        box = Box(), size = 0;
        for (int i = 1; i < bin_count; ++i) {
            box.include(bins[i - 1].box);
            const float total = costs[i] + cost(box, size += bins[i - 1].size);
            if (total < lowest) lowest = total, best = i, left = box, right = boxes[i];
        }
        return best;
    }

    Moments make_packet(const Part& part) {
        packets_.emplace_back();
        Packet& made = packets_.back();
        Moments sum;
        for (int lane = 0; lane < packet; ++lane) {
            const bool filled = lane < part.size();
            const std::int32_t face = references_[filled ? part.first + lane : part.last - 1].face;
            double corner[3][3];
            for (int k = 0; k < 3; ++k) {
                const double* vertex = vertices_ + 3 * faces_[3 * static_cast<std::int64_t>(face) + (filled ? k : 0)];
                for (int axis = 0; axis < 3; ++axis)
                    made.corner[k][axis][lane] = corner[k][axis] = (vertex[axis] - space_.origin[axis]) * space_.scale;
            }
            made.face[lane] = face;
            if (filled) sum.add(moments(corner));
        }
        return sum;
    }

    const double* const vertices_;
    const std::int64_t* const faces_;
    const Tree& space_;
    std::vector<Reference>& references_;
    std::vector<Node>& nodes_;
    std::vector<Expansion>& expansions_;
    std::vector<Packet>& packets_;
};

// Sets the origin to the centre of the faces' bounding box and the scale to the power of two that makes the mesh fit
// into the unit ball.
void set_space(Tree& tree, const double* vertices, const std::int64_t* faces, std::int64_t face_count) {
    double low[3], high[3], radius = 0;
    std::fill(low, low + 3, std::numeric_limits<double>::infinity());
    std::fill(high, high + 3, -std::numeric_limits<double>::infinity());
    for (std::int64_t i = 0; i < 3 * face_count; ++i)
        for (int axis = 0; axis < 3; ++axis) {
            low[axis] = std::min(low[axis], vertices[3 * faces[i] + axis]);
            high[axis] = std::max(high[axis], vertices[3 * faces[i] + axis]);
        }
    for (int axis = 0; axis < 3; ++axis) {
        tree.origin[axis] = low[axis] / 2 + high[axis] / 2;
        radius = std::hypot(radius, high[axis] / 2 - low[axis] / 2);
    }
    // A mesh whose vertices coincide has radius 0.
    tree.scale = radius > 0 ? std::ldexp(1.0, std::min(1000, -std::ilogb(radius) - 1)) : 1;
}

std::vector<Reference> make_references(const Tree& space, const double* vertices, const std::int64_t* faces,
                                       std::int64_t face_count) {
    std::vector<Reference> references(face_count);
    for (std::int64_t i = 0; i < face_count; ++i) {
        Reference& made = references[i];
        made.face = static_cast<std::int32_t>(i);
        for (int k = 0; k < 3; ++k) {
            const double* vertex = vertices + 3 * faces[3 * i + k];
            for (int axis = 0; axis < 3; ++axis) {
                const auto at = static_cast<float>((vertex[axis] - space.origin[axis]) * space.scale);
                made.box.low[axis] = std::min(made.box.low[axis], at - box_margin);
                made.box.high[axis] = std::max(made.box.high[axis], at + box_margin);
            }
        }
    }
    return references;
}

}  // namespace

OwnedTree::OwnedTree(const double* vertices, const std::int64_t* faces, std::int64_t face_count) {
    set_space(view_, vertices, faces, face_count);
    std::vector<Reference> references = make_references(view_, vertices, faces, face_count);
    packets_.reserve(face_count / 2);
    nodes_.reserve(face_count / 12 + 1);
    expansions_.reserve(face_count / 12 + 1);
    Builder builder(vertices, faces, view_, references, nodes_, expansions_, packets_);
    builder.build(builder.part(0, face_count), 0);
    view_.nodes = nodes_.data();
    view_.expansions = expansions_.data();
    view_.packets = packets_.data();
}

}  // namespace neuralsdf

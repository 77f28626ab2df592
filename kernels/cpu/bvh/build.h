// Builds the tree of a mesh.
#pragma once

#include <cstdint>
#include <vector>

#include "shared/bvh.h"

namespace neuralsdf {

// A tree that owns its memory. Vertices must be (V, 3) and finite, faces (F, 3) with 0 < F < 2^29 and indices below V.
class OwnedTree {
  public:
    OwnedTree(const double* vertices, const std::int64_t* faces, std::int64_t face_count);
    OwnedTree(const OwnedTree&) = delete;
    OwnedTree& operator=(const OwnedTree&) = delete;

    const Tree& view() const { return view_; }
    const std::vector<Node>& nodes() const { return nodes_; }
    const std::vector<Expansion>& expansions() const { return expansions_; }
    const std::vector<Packet>& packets() const { return packets_; }

  private:
    std::vector<Node> nodes_;
    std::vector<Expansion> expansions_;
    std::vector<Packet> packets_;
    Tree view_;
};

}  // namespace neuralsdf

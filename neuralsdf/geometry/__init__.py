"""Points and triangles: similarity transforms, bounding volume hierarchies, points on surfaces."""

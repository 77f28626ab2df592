"""Random trees, for tests."""

from __future__ import annotations

from hypothesis import strategies as st

from neuralsdf.csg import Shape, box, capsule, cone, cylinder, ellipsoid, rounded_box, smooth, sphere, torus

sides = st.floats(0.1, 1.0)
coordinates = st.floats(-0.6, 0.6)
angles = st.floats(-180, 180)
solids = st.one_of(
    st.builds(sphere, sides),
    st.builds(box, sides, sides, sides),
    st.builds(
        lambda x, y, z, share: rounded_box(x, y, z, share * min(x, y, z) / 2), sides, sides, sides, sides
    ),
    st.builds(cylinder, sides, sides),
    st.builds(capsule, sides, sides),
    st.builds(cone, sides, sides, st.floats(0, 1)),
    st.builds(lambda major, share: torus(major, share * major), sides, sides),
    st.builds(ellipsoid, sides, sides, sides),
)
directions = st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda vector: max(map(abs, vector)) > 0.1)


def _combined(trees: st.SearchStrategy[Shape]) -> st.SearchStrategy[Shape]:
    radii = st.floats(0, 0.5)
    return st.one_of(
        st.builds(Shape.__or__, trees, trees),
        st.builds(Shape.__and__, trees, trees),
        st.builds(Shape.__sub__, trees, trees),
        st.builds(lambda a, b, radius: a | smooth(radius, b), trees, trees, radii),
        st.builds(lambda a, b, radius: a & smooth(radius, b), trees, trees, radii),
        st.builds(lambda a, b, radius: a - smooth(radius, b), trees, trees, radii),
        st.builds(Shape.blend, trees, trees, st.floats(0, 1)),
        st.builds(lambda a, b: a & ~b, trees, trees),
        st.builds(Shape.translate, trees, coordinates, coordinates, coordinates),
        st.builds(lambda a, angle, axis: a.rotate(angle, *axis), trees, angles, directions),
        st.builds(Shape.scale, trees, st.floats(0.5, 2)),
        st.builds(lambda a, normal: a.reflect(*normal), trees, directions),
        st.builds(lambda a, normal: a.symmetry(*normal), trees, directions),
        st.builds(Shape.offset, trees, st.floats(-0.1, 0.2)),
        st.builds(Shape.shell, trees, st.floats(0.05, 0.2)),
        st.builds(Shape.hollow, trees, st.floats(0.05, 0.2)),
        st.builds(Shape.displace, trees, st.floats(0, 0.05), st.floats(0.2, 1)),
        st.builds(Shape.twist, trees, st.floats(-60, 60)),
    )


trees = st.recursive(solids, _combined, max_leaves=6)

"""Properties of every extracted surface."""

from __future__ import annotations

import numpy as np

from neuralsdf.fields.extract import Surface


def assert_closed(surface: Surface) -> None:
    """Every edge belongs to two faces that traverse it in opposite directions; every vertex is used."""
    tail, head = surface.faces.ravel(), np.roll(surface.faces, -1, axis=1).ravel()
    count = len(surface.vertices)
    edges, times = np.unique(tail * count + head, return_counts=True)
    assert (times == 1).all()
    assert np.array_equal(edges, np.unique(head * count + tail))
    assert surface.watertight
    assert len(np.unique(surface.faces)) == count

"""
array_types.py
--------------
Array type aliases, one name for each role. float64 arrays describe shapes, in mesh space or model space;
backends compute with float32 arrays. Docstrings state the shapes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

#: Positions (n, 3).
Points = npt.NDArray[np.float64]

#: Directions, normals, gradients or differences (n, 3).
Vectors = npt.NDArray[np.float64]

#: One number for each point, vertex or face: distances, areas, weights (n,).
Values = npt.NDArray[np.float64]

#: An affine transform of column vectors (4, 4), or a stack of them (n, 4, 4).
Matrix4 = npt.NDArray[np.float64]

#: Vertex indices of triangles (F, 3).
Faces = npt.NDArray[np.int64]

#: Indices (n,).
Index = npt.NDArray[np.int64]

#: Boolean selection (n,).
Mask = npt.NDArray[np.bool_]

#: Points, values, gradients and weights in a backend's precision.
FloatArray = npt.NDArray[np.float32]

"""
arrays.py
---------
The array types of the library, one name each. What is float64 describes shapes, in mesh space or in the
model's; what is float32 is what backends compute in. Shapes are in the docstrings.
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

#: Affine maps of column vectors (4, 4), or some of them (n, 4, 4).
Matrix4 = npt.NDArray[np.float64]

#: Vertices of triangles (F, 3).
Faces = npt.NDArray[np.int64]

#: Indices (n,).
Index = npt.NDArray[np.int64]

#: Which of them (n,).
Mask = npt.NDArray[np.bool_]

#: Points, values, gradients and weights that a backend computes with.
FloatArray = npt.NDArray[np.float32]

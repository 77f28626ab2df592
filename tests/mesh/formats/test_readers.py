"""Requirements on every reader of a mesh format: linear work, and all memory drawn from the budget.

A new reader must have rows in `INPUTS`; the tests run on all of them.
"""

from __future__ import annotations

import json
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import neuralsdf
from neuralsdf.errors import MeshError
from neuralsdf.files import bounded_input as budgets
from neuralsdf.files.bounded_input import Budget, InputFile
from neuralsdf.mesh.formats.registry import READERS, SUFFIXES
from neuralsdf.mesh.formats.shared import ear_clipping as ears
from neuralsdf.mesh.formats.shared import polygon_triangulation
from neuralsdf.mesh.formats.shared import text_rows as text
from neuralsdf.mesh.formats.shared.raw_mesh import FormatError
from neuralsdf.mesh.load_mesh import read_raw

from ...helpers.scenes import Gltf, mesh_3mf, model_3mf, object_3mf
from ...helpers.shapes import box

# --- inputs of size n ------------------------------------------------------------------------------


def grid(n: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """About n triangles."""
    side = max(int((n / 2) ** 0.5), 1)
    x, y = np.meshgrid(np.arange(side + 1.0), np.arange(side + 1.0))
    first = (np.arange(side)[:, None] * (side + 1) + np.arange(side)).ravel()
    lower = np.stack([first, first + 1, first + side + 1], axis=1)
    upper = np.stack([first + 1, first + side + 2, first + side + 1], axis=1)
    return np.stack([x.ravel(), y.ravel(), x.ravel() % 2], axis=1), np.vstack([lower, upper])


def lines(pattern: str, rows: npt.NDArray[Any]) -> str:
    return "".join(pattern.format(*row) + "\n" for row in rows.tolist())


def wave(n: int) -> npt.NDArray[np.float64]:
    """A polygon of n corners that is not convex."""
    angle = np.arange(n) * 2 * np.pi / n
    radius = 1 + 0.3 * np.sin(7 * angle) + 0.5 * (np.arange(n) % 2) / n
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), 0 * angle], axis=1)


def comb(n: int) -> npt.NDArray[np.float64]:
    """A polygon of n corners: a comb of long teeth of almost equal length."""
    x = np.repeat(np.arange(n // 2), 2)
    teeth = np.stack([x, np.tile([0, 50], n // 2) + x % 3, 0 * x], axis=1).astype(float)
    return np.vstack([[[0, -9, 0]], teeth, [[n // 2, -9, 0]]])[::-1]


V = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\n"
OFF = "OFF\n4 {} 0\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n"


def obj(mesh: tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]) -> str:
    return lines("v {} {} {}", mesh[0]) + lines("f {} {} {}", mesh[1] + 1)


def polygon(ring: npt.NDArray[np.float64]) -> str:
    return lines("v {} {} {}", ring) + "f " + " ".join(str(i + 1) for i in range(len(ring))) + "\n"


def off(mesh: tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]) -> str:
    counts = f"OFF\n{len(mesh[0])} {len(mesh[1])} 0\n"
    return counts + lines("{} {} {}", mesh[0]) + lines("3 {} {} {}", mesh[1])


def ply_header(vertices: int, faces: str, encoding: str = "ascii") -> str:
    return (
        f"ply\nformat {encoding} 1.0\nelement vertex {vertices}\nproperty float x\nproperty float y\n"
        f"property float z\n{faces}end_header\n"
    )


def ply(mesh: tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]) -> str:
    faces = f"element face {len(mesh[1])}\nproperty list uchar int vertex_indices\n"
    return ply_header(len(mesh[0]), faces) + lines("{} {} {}", mesh[0]) + lines("3 {} {} {}", mesh[1])


def stl(n: int) -> str:
    points, faces = grid(n)
    facet = "facet normal 0 0 1\nouter loop\n" + "vertex {} {} {}\n" * 3 + "endloop\nendfacet"
    return "solid a\n" + lines(facet, points[faces].reshape(-1, 9)) + "endsolid a\n"


def binary_ply(n: int) -> bytes:
    """Alternating triangles and quads, so that rows differ in length."""
    faces = f"element face {n}\nproperty list uchar int vertex_indices\nproperty uchar q\n"
    rows = [
        b"\3" + np.array([0, 1, 2], "<i4").tobytes() + b"q",
        b"\4" + np.arange(4, dtype="<i4").tobytes() + b"q",
    ]
    header = ply_header(4, faces, "binary_little_endian").encode()
    return header + np.eye(4, 3, dtype="<f4").tobytes() + b"".join(rows[i % 2] for i in range(n))


def binary_off(n: int) -> bytes:
    """Alternating triangles and quads, with colours."""
    faces = [[3, 0, 1, 2, 0], [4, 0, 1, 2, 3, 1, 0]]
    words = [4, n, 0, *np.eye(4, 3, dtype=">f4").view(">i4").ravel().tolist()]
    return b"OFF BINARY\n" + np.array(words + [w for i in range(n) for w in faces[i % 2]], ">i4").tobytes()


def scene(n: int) -> Gltf:
    file = Gltf()
    file.mesh(box(1, 1, 1))
    file.tree["nodes"] = [{"mesh": 0, "translation": [3 * i, 0, 0]} for i in range(n)]
    file.tree["scenes"] = [{"nodes": list(range(n))}]
    return file


def chain(n: int) -> Gltf:
    """Chains of a hundred nodes, each the child of the previous one."""
    file = scene(n)
    for i in range(n):
        if i % 100:
            file.tree["nodes"][i - 1]["children"] = [i]
    file.tree["scenes"] = [{"nodes": list(range(0, n, 100))}]
    return file


def parts(n: int) -> Gltf:
    """Many meshes of one box each."""
    file = Gltf()
    for _ in range(n):
        file.mesh(box(1, 1, 1))
    file.tree["nodes"] = [{"mesh": i} for i in range(n)]
    file.tree["scenes"] = [{"nodes": list(range(n))}]
    return file


def shared(n: int) -> Gltf:
    """Many primitives of one face each, on one list of vertices that is not in the file."""
    file = Gltf()
    file.mesh(box(1, 1, 1))
    file.tree["accessors"][0] |= {"count": 8 * n}
    del file.tree["accessors"][0]["bufferView"]
    file.tree["accessors"][1]["count"] = 3
    file.tree["meshes"][0]["primitives"] *= n
    return file


def weighted(n: int) -> Gltf:
    """Many nodes with weights of their own for a mesh without morph targets or faces."""
    file = scene(n)
    file.tree["accessors"][0] |= {"count": 8 * n}
    del file.tree["accessors"][0]["bufferView"]
    file.tree["accessors"][1]["count"] = 0
    for i, node in enumerate(file.tree["nodes"]):
        node["weights"] = [i]
    return file


def skinned(n: int) -> Gltf:
    """Many nodes with one skin that has all of them as joints."""
    file = scene(n)
    joints, weights = file.accessor([[0, 0, 0, 0]] * 8, "u1"), file.accessor([[1, 0, 0, 0]] * 8)
    file.primitive["attributes"] |= {"JOINTS_0": joints, "WEIGHTS_0": weights}
    file.tree["skins"] = [{"joints": list(range(n))}]
    for node in file.tree["nodes"]:
        node["skin"] = 0
    return file


def gltf_text(file: Gltf) -> bytes:
    import base64

    uri = "data:application/octet-stream;base64," + base64.b64encode(file.blob).decode()
    file.tree["buffers"] = [{"byteLength": len(file.blob), "uri": uri}]
    return json.dumps(file.tree).encode()


def archive(model: str) -> bytes:
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("3D/3dmodel.model", model)
    return stream.getvalue()


def short_beams(n: int) -> str:
    """Object 1, a lattice whose beams are all too short to count, in the box."""
    beams = '<b:beam v1="0" v2="1"/>' * n
    lattice = f'<b:beamlattice radius="1" minlength="9"><b:beams>{beams}</b:beams></b:beamlattice>'
    return f'<object id="1">{mesh_3mf(box(1, 1, 1), lattice)}</object>'


BOX = object_3mf(box(1, 1, 1))
FACES_4 = "element face {}\nproperty list uint int vertex_indices\n"
TETRAHEDRON = "0 0 0\n1 0 0\n0 1 0\n0 0 1\n"

PLY_1 = ply_header(4, FACES_4.format(1)) + TETRAHEDRON


def ply_of(faces: int) -> str:
    return ply_header(4, FACES_4.format(faces)) + TETRAHEDRON


def off_with_comments(n: int) -> str:
    return "#\n" * n + "OFF # a" + "#" * n + "\n" + OFF[4:].format(n) + "3 0 1 2 # a\n#\n" * n


def ply_of_elements(n: int) -> str:
    header = ply_header(4, "element a 1\nproperty int b\n" * (n // 2) + FACES_4.format(1))
    return header + TETRAHEDRON + "7\n" * (n // 2) + "3 0 1 2\n"


def ply_of_broken_elements(n: int) -> str:
    """Each element has one row, which spans three lines."""
    header = ply_header(4, "element a 1\nproperty list int int b\n" * (n // 4) + FACES_4.format(1))
    return header + TETRAHEDRON + "2\n7\n7\n" * (n // 4) + "3 0 1 2\n"


def ply_of_properties(n: int) -> str:
    header = ply_header(4, FACES_4.format(1) + "".join(f"property int a{i}\n" for i in range(n)))
    return header + TETRAHEDRON + "3 0 1 2" + " 7" * n


def binary_ply_of_properties(n: int) -> bytes:
    faces = FACES_4.format(2) + "".join(f"property uchar a{i}\n" for i in range(n))
    row = np.array([3, 0, 1, 2], "<u4").tobytes() + bytes(n)
    return (
        ply_header(4, faces, "binary_little_endian").encode() + np.eye(4, 3, dtype="<f4").tobytes() + row * 2
    )


INPUTS: dict[str, dict[str, Callable[[int], str | bytes]]] = {
    "OBJ": {
        "plain": lambda n: obj(grid(n)),
        "wave": lambda n: polygon(wave(n // 4)),
        "comb": lambda n: polygon(comb(n // 4)),
        "one point": lambda n: V + "f" + " 1" * n,
        "pentagons": lambda n: V + "v 0.2 0.2 0\n" + "f 1 2 5 3 4\n" * n,
        "banner": lambda n: "#" * n + "\n" + V + "f 1 2 3\n",
        "comments": lambda n: "# a\n" * n + V + "f 1 2 3\n" + "#\n" * n,
        "blanks": lambda n: " " * n + V + "f 1 2 3" + " " * n,
        "blank lines": lambda n: "\n" * n + V + "f 1 2 3" + "\n" * n,
        "continued face": lambda n: V + "f" + " \\\n1" * n,
        "continued comments": lambda n: "# \\\n" * n + V + "f 1 2 3 # \\ \\ \\\n" * n,
        "backslashes": lambda n: V + "f 1 2 3 " + "\\" * n + "\nf " + "\\ " * n,
        "old Macs": lambda n: obj(grid(n)).replace("\n", "\r"),
        "UTF-16": lambda n: obj(grid(n)).encode("utf-16"),
        "relative": lambda n: V + "v 1 1 1\nf -1 -2 -3\n" * n,
        "long vertex": lambda n: V + "v" + " 1" * n + "\nf 1 2 3\n",
        "slashes": lambda n: V + "f 1" + "/" * n + " 2 3\n",
        "long number": lambda n: V + "v 0 0 0." + "1" * n + "\nf 1 2 3\n",
        "short faces": lambda n: V + "f 1 2\n" * n + "f 1 2 3\n",
        "odd numbers": lambda n: V + "v 1 2 infinity\n" * n + "f 1 2 3\n",
        "no line of it": lambda n: V + "f 1 2 3\n" + "usemtl a\n" * n,
    },
    "OFF": {
        "plain": lambda n: off(grid(n)),
        "a word a line": lambda n: off(grid(n)).replace(" ", "\n"),
        "one line": lambda n: off(grid(n)).replace("\n", " "),
        "two rows a line": lambda n: OFF.format(2 * n) + "3 0 1 2 3 0 1 2\n" * n,
        "one row over all lines": lambda n: OFF.format(1) + f"{n}" + "\n0" * n,
        "one row in a line": lambda n: OFF.format(1) + f"{n}" + " 0" * n,
        "every second row broken": lambda n: OFF.format(2 * n) + "3 0 1 2\n3 0\n1 2\n" * n,
        "comments": off_with_comments,
        "blank lines": lambda n: OFF.format(n) + "3 0 1 2 \n \n" * n,
        "letters": lambda n: "STCN" * n + OFF.format(1) + "3 0 1 2\n",
        "empty faces": lambda n: OFF.format(n) + "0\n" * n,
        "counts": lambda n: OFF.format(1) + "3 0 1 2\n" + "0" * n,
        "binary": binary_off,
    },
    "PLY": {
        "plain": lambda n: ply(grid(n)),
        "a word a line": lambda n: ply_of(n) + "3\n0\n1\n2\n" * n,
        "one row over all lines": lambda n: PLY_1 + f"{n}" + "\n0" * n,
        "one row in a line": lambda n: PLY_1 + f"{n}" + " 0" * n,
        "every second row broken": lambda n: ply_of(2 * n)
        + "3 0 1 2\n3 0\n1 2\n" * n,
        "elements": ply_of_elements,
        "broken rows of many elements": ply_of_broken_elements,
        "properties": ply_of_properties,
        "comments": lambda n: PLY_1.replace("element face", "comment a\n" * n + "element face") + "3 0 1 2\n",
        "no header": lambda n: "ply\n" + "end_header x\n" * n,
        "strips": lambda n: ply_header(4, FACES_4.replace("face", "tristrips").format(1)) + TETRAHEDRON
        + f"{4 * n}" + " 0 1 2 -1" * n,
        "binary": binary_ply,
        "binary properties": binary_ply_of_properties,
    },
    "STL": {
        "plain": stl,
        "one line": lambda n: stl(n).replace("\n", " "),
        "a word a line": lambda n: stl(n).replace(" ", "\n"),
        "solids": lambda n: "solid\nendsolid\n" * n + stl(2) * (n // 20),
        "one facet": lambda n: "solid\nfacet normal\n" + "vertex 0 0 0\n" * n + "endfacet\nendsolid\n",
        "no facet ends": lambda n: "solid\n" + "facet normal 0 0 1\nvertex 0 0 0\n" * n,
        "names": lambda n: stl(2).replace("solid a", "solid" + " facet vertex" * n),
        "something behind": lambda n: stl(2) + "; a\n" * n,
        "padding": lambda n: stl(2) + "\0\x1a " * n,
        "binary": lambda n: b"a".ljust(80) + bytes(4) + bytes(50) * n,
    },
    "GLB": {
        "plain": lambda n: scene(n // 12).glb(),
        "chain": lambda n: chain(n // 12).glb(),
        "parts": lambda n: parts(n // 12).glb(),
        "shared": lambda n: shared(n // 4).glb(),
        "weighted": lambda n: weighted(n // 4).glb(),
        "skinned": lambda n: skinned(n // 12).glb(),
    },
    "glTF": {
        "plain": lambda n: gltf_text(scene(n // 12)),
        "chain": lambda n: gltf_text(chain(n // 12)),
        "parts": lambda n: gltf_text(parts(n // 12)),
        "blanks": lambda n: b" " * n + gltf_text(scene(1)),
        "depth": lambda n: b'{"asset":' + b"[" * n,
    },
    "3MF": {
        "plain": lambda n: archive(model_3mf(BOX, '<item objectid="1"/>' * (n // 12))),
        "objects": lambda n: archive(model_3mf(
            "".join(object_3mf(box(1, 1, 1)).replace('"1"', f'"{2 * i + 1}"').replace('"2"', f'"{2 * i + 2}"')
                    for i in range(n // 24)),
            "".join(f'<item objectid="{2 * i + 2}"/>' for i in range(n // 24)))),
        "tags cut off": lambda n: archive(model_3mf(BOX, '<item objectid="1"/>')[:-30] + "<object " * n),
        "lattices": lambda n: archive(model_3mf(short_beams(8 * n), "".join(
            f'<item objectid="1" transform="1 0 0 0 1 0 0 0 1 {i} 0 0"/>' for i in range(n // 4)))),
        "unused": lambda n: archive(model_3mf(BOX, '<item objectid="1"/>' + "<x:a/>" * n)),
    },
}  # fmt: skip

CASES = [(format_, name) for format_, inputs in INPUTS.items() for name in inputs]


def made(format_: str, name: str, n: int) -> InputFile:
    content = INPUTS[format_][name](n)
    data = content if isinstance(content, bytes) else content.encode()
    path = Path("a" + next(suffix for suffix, known in SUFFIXES.items() if known == format_))
    return InputFile(path, data, Budget(path, MeshError, len(data)))


def read(file: InputFile, format_: str) -> bool:
    """Read the content; returns whether it is a mesh."""
    try:
        assert read_raw(file)[0] == format_
    except FormatError:
        return False
    return True


def test_every_reader_has_inputs() -> None:
    assert INPUTS.keys() == READERS.keys()
    assert all(read(made(format_, "plain", 100), format_) for format_ in READERS)


# --- linear work -----------------------------------------------------------------------------------

PACKAGE = str(Path(neuralsdf.__file__).parent)


class Operations:
    """Counts operations: executed lines of the package, calls of any function, and 64 bytes allocated.

    Allocations represent the work inside calls of libraries, such as copying the rest of a file for each of
    its lines.
    """

    def __init__(self) -> None:
        self.count = 0
        self._held = 0

    def __enter__(self) -> Operations:
        self._before = sys.gettrace(), sys.getprofile()
        tracemalloc.start()
        sys.setprofile(self._on_call)
        sys.settrace(self._on_frame)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before[0])
        sys.setprofile(self._before[1])
        tracemalloc.stop()

    def _on_call(self, frame: FrameType, event: str, argument: Any) -> None:
        self.count += event == "c_call"

    def _on_frame(self, frame: FrameType, event: str, argument: Any) -> Any:
        self.count += 1
        return self._on_line if frame.f_code.co_filename.startswith(PACKAGE) else None

    def _on_line(self, frame: FrameType, event: str, argument: Any) -> Any:
        held, peak = tracemalloc.get_traced_memory()
        self.count += 1 + max(peak - self._held, 0) // 64
        self._held = held
        tracemalloc.reset_peak()
        return self._on_line


def operations(file: InputFile, format_: str) -> int:
    with Operations() as counted:
        read(file, format_)
    return counted.count


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks so small that every input has many."""
    monkeypatch.setattr(text, "BLOCK", 1 << 10)
    monkeypatch.setattr(polygon_triangulation, "BLOCK", 1 << 8)
    monkeypatch.setattr(ears, "MANY", 50)


def test_the_counter_detects_quadratic_work() -> None:
    def copies(n: int) -> int:
        with Operations() as counted:
            quadratic(b"1" * n)
        return counted.count

    code = "def quadratic(data):\n    while data:\n        data = data[1:]\n"
    space: dict[str, Any] = {}
    exec(compile(code, f"{PACKAGE}/none.py", "exec"), space)
    quadratic = space["quadratic"]
    assert copies(4000) > 3.5 * copies(2000)


@pytest.mark.parametrize(("format_", "name"), CASES)
@pytest.mark.usefixtures("small_blocks")
def test_operations_are_linear_in_the_input(format_: str, name: str) -> None:
    """With a margin for n log n, and far from the factor of 4 of quadratic work.

    Polygons whose triangles are slivers may take n sqrt(n).
    """
    size = 400
    read(made(format_, name, 10), format_)  # imports
    small, large = (operations(made(format_, name, n), format_) for n in (size, 2 * size))
    assert large < (2.9 if name == "comb" else 2.5) * small


# --- the budget ------------------------------------------------------------------------------------


@pytest.mark.parametrize("format_", READERS)
def test_every_reader_respects_the_budget(format_: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budgets, "FREE_BYTES", 0)
    monkeypatch.setattr(budgets, "EXPANSION", 0)
    with pytest.raises(MeshError, match="decodes to more than 0 MB"):
        read(made(format_, "plain", 100), format_)


@pytest.mark.parametrize(("format_", "name"), CASES)
def test_memory_is_drawn_from_the_budget(format_: str, name: str) -> None:
    """A reader draws its peak memory from the budget, up to a small multiple of the file."""
    read(made(format_, name, 10), format_)  # imports
    file = made(format_, name, 5000)
    tracemalloc.start()
    read(file, format_)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= file.budget.drawn + 6 * len(file.data) + (1 << 19)

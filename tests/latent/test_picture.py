"""The sheet of reconstructions beside their meshes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from neuralsdf.fields.mesh_field import MeshField
from neuralsdf.geometry.similarity_transform import Similarity
from neuralsdf.latent import picture
from neuralsdf.latent.cache import Entry
from neuralsdf.latent.evaluate import Evaluated
from neuralsdf.latent.picture import Pair, save_picture, sheet
from neuralsdf.latent.reconstruct import Reconstruction
from neuralsdf.mesh.save_mesh import save_mesh
from neuralsdf.mesh.signed_distance import SignedDistance

from ..helpers import shapes

SIDE = 64


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture, "_SIDE", SIDE)


def field(height: float, place: Similarity | None = None) -> MeshField:
    """A box in the unit ball, with a transform."""
    vertices, faces = shapes.box(0.5, 0.5, height)
    return MeshField(SignedDistance(vertices, faces), place or Similarity.identity())


def halves(panel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two renderings of the first pair of a sheet."""
    top, left = picture._GAP + picture._LINE, picture._GAP
    rows = panel[top : top + SIDE]
    return rows[:, left : left + SIDE, :3].astype(int), rows[:, left + SIDE : left + 2 * SIDE, :3].astype(int)


def test_both_halves_of_a_pair_are_seen_from_one_camera() -> None:
    place = Similarity.from_ball([100, -20, 3], 25)
    mesh, again = halves(sheet([Pair("box", "IoU 1", field(0.5, place), field(0.5, place))]))
    assert mesh.std() > 20
    assert np.abs(mesh - again).mean() < 2
    _, lower = halves(sheet([Pair("box", "IoU 0.5", field(0.5, place), field(0.25, place))]))
    assert np.abs(mesh - lower).mean() > 5


def test_a_reconstruction_without_a_surface_is_the_background_with_a_remark() -> None:
    class Nowhere(MeshField):
        def value(self, points: np.ndarray) -> np.ndarray:
            return np.ones(len(points), np.float32)

    empty = Nowhere(field(0.5).oracle, Similarity.identity())
    mesh, nothing = halves(sheet([Pair("box", "IoU 0", field(0.5), empty)]))
    assert mesh.std(axis=1).max() > 20
    varied = nothing.std(axis=1).any(axis=1)
    middle = slice(SIDE // 2 - 10, SIDE // 2 + 10)
    assert varied[middle].any()
    varied[middle] = False
    assert not varied.any()


def test_the_sheet_shows_the_best_the_worst_and_four_between_them(tmp_path: Path) -> None:
    shapes_ = []
    for i in range(11):
        path = tmp_path / f"{i}.ply"
        save_mesh(path, *shapes.box(1, 1, 1))
        found = Reconstruction(field(0.5), 0.0, 0.0)  # type: ignore[arg-type]
        shapes_.append(Evaluated(Entry(path.name, "box", "test", path), {"iou": 1 - i / 20}, found))
    shapes_.append(Evaluated(Entry("gone.ply", "box", "test", tmp_path / "gone.ply"), {}, None, "failed"))
    ranked = picture._by_rank(shapes_)
    assert [rank for rank, _ in ranked] == [1, 3, 5, 7, 9, 11]
    assert [shape.name for _, shape in ranked] == ["0.ply", "2.ply", "4.ply", "6.ply", "8.ply", "10.ply"]
    assert save_picture(tmp_path / "sheet.png", shapes_) == 6
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.size[0] > 6 * SIDE
        assert image.size[1] > 2 * SIDE
    assert save_picture(tmp_path / "none.png", shapes_[-1:]) == 0
    assert not (tmp_path / "none.png").exists()


def test_a_long_name_loses_its_middle() -> None:
    name = "chair/test/" + "x" * 200 + "/the_last_of_all.ply"
    drawn = sheet([Pair(name, "IoU 1", field(0.5), field(0.5))])
    assert drawn.shape == sheet([Pair("a", "IoU 1", field(0.5), field(0.5))]).shape


def test_a_name_of_any_length_is_shortened_at_once() -> None:
    draw = ImageDraw.Draw(Image.new("RGB", (8, 8)))
    text = picture._fitting("i" * 100_000, draw)
    assert 8 < len(text) < 2 * SIDE
    assert draw.textlength(text, font=picture._font(15)) <= 2 * SIDE

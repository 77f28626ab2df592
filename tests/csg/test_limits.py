"""Trees that need too much: deep, wide or repeated ones, numbers of any size, one file many times."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralsdf.backends.reference.tape_interpreter import TapeProgram
from neuralsdf.cli.main import main
from neuralsdf.csg import ExpressionError, Shape, from_field, parse, sphere, union
from neuralsdf.csg.expression_parser import MAX_DEPTH, _parameters
from neuralsdf.csg.primitives import SOLIDS
from neuralsdf.csg.shape import METHODS
from neuralsdf.errors import ModelError, NeuralSDFError, NoSurfaceError
from neuralsdf.fields.extract import extract
from neuralsdf.fields.field import NeuralField
from neuralsdf.geometry.similarity_transform import Similarity
from neuralsdf.mesh.save_mesh import save_mesh
from neuralsdf.program.network import Architecture, Network
from neuralsdf.storage import csg_file as tree_files
from neuralsdf.storage import open_field, save_field
from neuralsdf.storage.csg_file import parse_tree

from ..helpers import shapes
from ..helpers.fields import ball_field


def evaluated(shape: Shape, monkeypatch: pytest.MonkeyPatch) -> tuple[Shape, list[int]]:
    """A tree with its ball, and the number of cells of each evaluation during the search for it."""
    counts: list[int] = []
    evaluate = TapeProgram.evaluate
    monkeypatch.setattr(
        TapeProgram, "evaluate", lambda self, points: counts.append(len(points)) or evaluate(self, points)
    )
    _ = shape.transform
    return shape, counts


def test_the_work_of_the_search_for_a_ball_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    # Hundreds of copies at each point, so that hardly any cell is empty: a hundred bytes of text.
    copies = sphere(1).repeat(0.67, 0.67, 0.67, 9, 9, 9)
    shape = (copies | sphere(1)).scale(0.1).repeat(0.67, 0.67, 0.67, 9, 9, 9)
    field, counts = evaluated(shape, monkeypatch)
    assert shape.size * sum(max(count, 256) for count in counts) <= 1.01 * (1 << 28)
    assert len(counts) > 3, "what can be found for that much work is found"
    # A box of overlapping balls; its enclosing ball contains it, and is not larger than that of its bounds.
    ends = np.array([[-0.1, 0, 0], [8 * 0.067 + 8 * 0.67 + 0.1, 0, 0]])
    assert (np.linalg.norm(field.transform.apply_inverse(ends), axis=1) <= 1).all()
    assert field.transform.scale <= np.linalg.norm(shape.high - shape.low) / 2 * 1.001


def test_the_ball_of_an_ordinary_tree_is_searched_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [sphere(0.05).translate(math.cos(k), math.sin(k)) for k in range(300)]
    field, counts = evaluated(union(parts), monkeypatch)
    assert len(counts) == 7
    assert field.transform.scale == pytest.approx(1.05, abs=0.1)


NUMBERS = st.one_of(
    st.sampled_from(
        [0, 1, -1, 90, 5e-324, 1e-300, 1e-150, 1e-38, 1e-12, 1e9, 1e19, 3.4e38, 1e150, 1e300, 1e308]
    ),
    st.floats(0.1, 3),
)


def calls(
    words: Mapping[str, Callable[..., Shape]], method: bool
) -> st.SearchStrategy[tuple[str, list[float]]]:
    """A word that takes only numbers, with any valid number of them."""

    def arguments(word: str) -> st.SearchStrategy[list[float]]:
        names, required = _parameters(words[word], method)
        return st.lists(NUMBERS, min_size=required, max_size=len(names))

    known = sorted(word for word in words if word != "blend")
    return st.sampled_from(known).flatmap(lambda word: st.tuples(st.just(word), arguments(word)))


@given(
    solids=st.lists(calls(SOLIDS, False), min_size=1, max_size=3),
    methods=st.lists(calls(METHODS, True), max_size=4),
    operators=st.lists(st.sampled_from("|&-"), min_size=3, max_size=3),
)
@settings(max_examples=150)
def test_numbers_of_any_size_give_a_field_or_an_error(
    solids: list[tuple[str, list[float]]], methods: list[tuple[str, list[float]]], operators: list[str]
) -> None:
    def written(call: tuple[str, list[float]]) -> str:
        return f"{call[0]}({', '.join(map(repr, call[1]))})"

    text = written(solids[0])
    for operator, solid in zip(operators, solids[1:], strict=False):
        text += f" {operator} smooth({solid[1][0] if solid[1] else 0!r}, {written(solid)})"
    text = f"({text})" + "".join(f".{written(method)}" for method in methods)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # numpy's, which users would see
        try:
            field = parse(text, Shape)  # type: ignore[arg-type]
            points = field.transform.apply(np.random.default_rng(0).uniform(-0.5, 0.5, (20, 3)))
            assert not np.isnan(field.distance(points)).any()
        except NeuralSDFError:
            pass  # one line, as for every error of this class


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("sphere(1).twist(1e300)", "twist: numbers out of range"),
        ("sphere(1).displace(1e300, 1e-300)", "displace: numbers out of range"),
        ("sphere(1e308)", "more than 1e[+]100 across"),
        ("sphere(1e308).offset(1e308)", "unbounded"),
        ("sphere(1) | ellipsoid(1e-300, 1, 1)", "ellipsoid: too large or too small compared"),
        ("sphere(1).repeat(1e-9, 0, 0, 1e9)", "copies overlap"),
        ("sphere(1).repeat(1, 0, 0, 1e300)", "too far from the origin|across"),
        ("sphere(1).scale(1e-300).scale(1e-300)", "out of|empty"),
        ("sphere(" + 400 * "9" + ")", "positive, not inf"),
    ],
)
def test_numbers_out_of_range_are_refused(text: str, complaint: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(NeuralSDFError, match=complaint):
            _ = parse(text, Shape).transform  # type: ignore[arg-type]


def test_the_number_of_open_brackets_is_bounded() -> None:
    with pytest.raises(ExpressionError, match="brackets are open"):
        parse("(" * (MAX_DEPTH + 10), Shape)  # type: ignore[arg-type]


def test_the_length_of_a_text_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "long.csg").write_bytes(b"sphere(1)" + b" " * tree_files.MAX_TEXT)
    with pytest.raises(ModelError, match="text"):
        open_field(tmp_path / "long.csg")


def test_a_file_with_many_names_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    open_mesh, open_model = tree_files.open_mesh, tree_files.open_model
    monkeypatch.setattr(
        tree_files, "open_mesh", lambda path, **rest: read.append(path.name) or open_mesh(path, **rest)
    )
    monkeypatch.setattr(
        tree_files, "open_model", lambda path, **rest: read.append(path.name) or open_model(path, **rest)
    )
    monkeypatch.chdir(tmp_path)
    save_mesh("a.ply", *shapes.box(1, 1, 1))
    save_field(ball_field(), "b.h5")
    os.symlink("a.ply", "link.ply")
    (tmp_path / "sub").mkdir()
    (tmp_path / "part.csg").write_text("a.ply | ./b.h5")
    names = [
        f"{'./' * k}{name}" for k in range(1, 9) for name in ("a.ply", "link.ply", "b.h5", "sub/../a.ply")
    ]
    tree = parse_tree(" | ".join([*names * 30, "part.csg", "./part.csg"]))
    assert sorted(read) == ["a.ply", "b.h5"]
    assert len({id(field) for field in tree.fields()}) == 2
    assert sorted({leaf.name for leaf in tree.leaves()}) == sorted({*names, "part.csg", "./part.csg"})


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("loop.h5", "links|symbolic"),
        ("loop.csg", "links|symbolic"),
        ("loop.ply", "links|symbolic"),
        ("dangling.h5", "no such file"),
        ("nul\0.h5", "cannot be read|no such file"),
        ("pipe.h5", "is no ordinary file|not a regular file"),
        ("folder.h5", "is a folder|is a directory"),
        (300 * "x" + ".h5", "cannot be read|too long"),
    ],
)
def test_unreadable_files_of_a_tree_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, complaint: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for loop in ("loop.h5", "loop.csg", "loop.ply"):
        os.symlink(loop, loop)
    os.symlink("nothing.h5", "dangling.h5")
    os.mkfifo("pipe.h5")
    (tmp_path / "folder.h5").mkdir()
    (tmp_path / "part.csg").write_text(f'sphere(1) | "{name}"')
    with pytest.raises(NeuralSDFError, match=complaint):
        open_field("part.csg")
    for arguments in (["info", "part.csg"], ["csg", f'sphere(1) - "{name}"']):
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code in (1, 2)
        assert "this is a bug" not in result.stderr
        assert result.stderr.startswith("neuralsdf: error: ")
        assert result.stderr.split("\n")[0].isprintable()


@pytest.mark.parametrize("name", ["r_lots.csg", "b_num.csg", "b_num9.csg", "nul.csg"])
def test_hostile_trees_end_in_a_few_lines(test_data: Path, name: str) -> None:
    path = test_data / "attacks" / name
    if not path.exists():
        pytest.skip("not here")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = CliRunner().invoke(main, ["query", str(path), "-"], input="0 0 0\n")
    assert result.exit_code in (0, 1, 2)
    assert "bug" not in result.stderr
    assert result.stderr.count("\n") <= 3  # with the excerpt


def test_a_slow_tree_is_extracted_coarsely(monkeypatch: pytest.MonkeyPatch) -> None:
    field = parse("box(1)", {}.__getitem__)
    fine = extract(field)
    monkeypatch.setattr("neuralsdf.fields.extract._MAX_WORK", 4 * field.operations)
    coarse = extract(field)
    assert not any("slow to evaluate" in note for note in fine.notes)
    assert f"extracted at resolution {coarse.resolution}" in coarse.notes[-1]
    assert f"`resolution={fine.resolution}` makes it finer" in coarse.notes[-1]
    assert coarse.resolution < fine.resolution
    assert coarse.volume == pytest.approx(1, rel=0.05)


def dead_field(width: int, depth: int) -> NeuralField:
    """A network that is zero everywhere."""
    architecture = Architecture((width,) * depth)
    weights = np.zeros(architecture.weight_count, np.float32)
    return NeuralField(Network(architecture, weights), Similarity.identity())


def test_a_network_that_is_zero_everywhere_is_named(tmp_path: Path) -> None:
    """It would be a film in every cell at every resolution."""
    save_field(dead_field(8, 2), tmp_path / "dead.h5")
    shape = parse_tree('"dead.h5" | sphere(1)', tmp_path)
    with pytest.raises(NoSurfaceError, match=r"dead\.h5: the field has no shape"):
        _ = shape.transform


def test_a_large_network_counts_more_in_the_search_for_a_ball(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its weights are those of the small network, spread over more neurons."""
    small, copies = ball_field(), 1000
    directions, bias = small.network.weights[:18].reshape(3, 6), small.network.weights[-1]
    width = 6 * copies
    wide = [np.tile(directions, copies).ravel(), np.zeros(width), np.full(width, 1 / copies), [bias]]
    network = Network(Architecture((width,), output="linear"), np.concatenate(wide).astype(np.float32))
    large = NeuralField(network, small.transform)
    monkeypatch.setattr("neuralsdf.csg.tree_bounds._LEAF_OPERATIONS", 0)
    monkeypatch.setattr("neuralsdf.csg.tree_bounds._MAX_WORK", 1 << 21)
    found, few = evaluated(from_field(large, "large.h5"), monkeypatch)
    weighed = sum(few)  # the list grows again below
    assert sum(max(count, 256) for count in few) * (large.operations // 2) < 1.01 * (1 << 21)
    monkeypatch.setattr("neuralsdf.csg.tree_bounds._LEAF_OPERATIONS", 1000)
    _, many = evaluated(from_field(large, "large.h5"), monkeypatch)
    assert sum(many) > 1.5 * weighed
    assert found.transform.scale == pytest.approx(2, rel=0.3)

"""The library's messages name keyword arguments, and the command line prints them as its options."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import neuralsdf
from neuralsdf.cli.main import LazyGroup, main
from neuralsdf.cli.shared.option_names import OTHER_NAMES, as_options
from neuralsdf.errors import OutputError, UsageError
from neuralsdf.mesh.save_mesh import save_mesh
from neuralsdf.training.fit_settings import Training

from ..helpers import shapes

LIBRARY = Path(neuralsdf.__file__).parent
#: An option as it is typed, such as --force or -o.
OPTION = re.compile(r"(?<![\w-])(--[a-z]|-o\b)")
#: Keywords of arguments that no command passes, so that no user of a command sees their messages.
PYTHON_ONLY = {"box", "level", "noise"}
KEYWORD = re.compile(r"`([a-z_]+)=")


def _texts(path: Path) -> Iterator[str]:
    """The strings in a module except docstrings; an f-string is one string."""
    tree = ast.parse(path.read_text())
    skipped: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            skipped.add(id(node.value))
        if isinstance(node, ast.JoinedStr):
            skipped |= {id(value) for value in node.values}
            parts = (value.value if isinstance(value, ast.Constant) else "0" for value in node.values)
            yield "".join(map(str, parts))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
            yield node.value


MODULES = [
    path
    for path in sorted(LIBRARY.rglob("*.py"))
    if path.relative_to(LIBRARY).parts[0] not in ("cli", "kernels")
]
TEXTS = [(str(path.relative_to(LIBRARY)), text) for path in MODULES for text in _texts(path)]


def test_the_library_names_no_option_of_the_command_line() -> None:
    named = [(module, text) for module, text in TEXTS if OPTION.search(text)]
    assert [pair for pair in named if not re.search("pip install|ray start", pair[1])] == []


def test_every_keyword_that_the_library_names_is_an_option() -> None:
    assert isinstance(main, LazyGroup)
    context = click.Context(main)
    commands = [main.get_command(context, name) for name in main.list_commands(context)]
    options = {option for command in commands if command for p in command.params for option in p.opts}
    keywords = {name for _, text in TEXTS for name in KEYWORD.findall(text)}
    assert len(keywords) > 20
    assert {as_options(f"`{name}=`") for name in keywords - PYTHON_ONLY} <= options
    assert keywords >= PYTHON_ONLY
    assert set(OTHER_NAMES) <= keywords  # no entry is left of a removed keyword


@pytest.mark.parametrize(
    ("message", "printed"),
    [
        ("x.h5: exists; replace it with `force=True`", "x.h5: exists; replace it with --force"),
        ("try `width=48` or more `epochs=`", "try --width 48 or more --epochs"),
        ("use `sign=\"parity\"`, or `sampling='uniform'`", "use --sign parity, or --sampling uniform"),
        ("`learning_rate=-1.0`: between 0 and 10", "--learning-rate -1.0: between 0 and 10"),
        ("`curvature` or `ray start --head`", "`curvature` or `ray start --head`"),
        ("a `b=c", "a `b=c"),
    ],
)
def test_keywords_become_options(message: str, printed: str) -> None:
    assert as_options(message) == printed


def test_errors_name_the_keyword_in_python_and_the_option_in_commands(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_mesh("box.ply", *shapes.box(1, 1, 1))
    with pytest.raises(OutputError, match=r"replace it with `force=True`.* `path=`"):
        save_mesh("box.ply", *shapes.box(1, 1, 1), force=False)
    with pytest.raises(UsageError, match="`time=-1` must be positive"):
        Training(seconds=-1)
    run = CliRunner().invoke
    again = run(main, ["extract", "box.ply", "-o", "box2.ply", "--resolution", "32"])
    assert again.exit_code == 0, again.output
    again = run(main, ["extract", "box.ply", "-o", "box2.ply", "--resolution", "32"])
    assert "replace it with --force, or choose another name with -o" in again.stderr
    assert "--time -1.0 must be positive" in run(main, ["convert", "box.ply", "--time", "-1"]).stderr


def test_messages_in_json_name_options_and_other_texts_stay(tmp_path, monkeypatch) -> None:
    """A box with a loose sheet: the warning names --thickness; the name of the file is unchanged."""
    monkeypatch.chdir(tmp_path)
    vertices, faces = shapes.moved(shapes.box(1, 1, 1), [0, 0, 3])
    sheet = vertices, faces[(vertices[faces, 2] > 3).all(axis=1)]
    name = "a `force=True`.ply"
    save_mesh(name, *shapes.joined(shapes.box(1, 1, 1), sheet, shapes.inverted(sheet)))
    result = CliRunner().invoke(main, ["info", name, "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["mesh"] == name
    assert "--thickness makes all of it solid" in found["found"]
    assert "--thickness makes all of it solid" in CliRunner().invoke(main, ["info", name]).stdout

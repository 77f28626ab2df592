"""The documents name files, headings, functions and classes that exist."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

from neuralsdf.cli.main import LazyGroup

ROOT = Path(__file__).parents[1]

DOCUMENTS = sorted(
    path
    for pattern in ("README.md", "CONTRIBUTING.md", "kernels/README.md", "docs/**/*.md")
    for path in ROOT.glob(pattern)
)

#: Documents shorten `neuralsdf/fields/field.py` to `fields/field.py`, and `kernels/cpu/thread_pool.cpp`
#: likewise.
FOLDERS = ("", "neuralsdf", "kernels", "kernels/cpu")


def _links(document: Path) -> Iterator[tuple[str, str]]:
    """Text and target of the relative links in a document."""
    for text, target in re.findall(r"\[([^\]]*)\]\(([^)\s]+)\)", document.read_text("utf-8")):
        if not re.match(r"[a-z]+:", target):
            yield text, target


def _file_names(text: str) -> set[str]:
    """The source files and documents that a text names with their folder; `*` stands for anything."""
    return set(re.findall(r"(?<![\w./-])([\w.*-]+/[\w./*-]*\.(?:py|h|cpp|cu|cuh|toml|md))\b", text))


def _anchors(document: Path) -> set[str]:
    """The anchors of the headings of a document, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", document.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def _defined(nodes: list[ast.stmt], prefix: str = "") -> Iterator[str]:
    """Functions, classes, methods (`Class.method`) and constants."""
    for node in nodes:
        if isinstance(node, ast.FunctionDef):
            yield prefix + node.name
        elif isinstance(node, ast.ClassDef):
            yield prefix + node.name
            yield from _defined(node.body, f"{prefix}{node.name}.")
        elif isinstance(node, ast.Assign):
            yield from (prefix + target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield prefix + node.target.id


@cache
def _names(file: Path) -> frozenset[str]:
    """What a source file defines; of a C++ file every word."""
    if file.suffix == ".py":
        return frozenset(_defined(ast.parse(file.read_text("utf-8")).body))
    return frozenset(re.findall(r"\w+", file.read_text("utf-8")))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(document: Path) -> None:
    for _, target in _links(document):
        path, _, anchor = target.partition("#")
        file = document.parent / path if path else document
        assert file.exists(), target
        assert not anchor or anchor in _anchors(file), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_named_files_exist(document: Path) -> None:
    text = re.sub(r"\]\([^)\s]+\)", "]", document.read_text("utf-8"))  # links have their own test
    for name in _file_names(text):
        assert any(list((ROOT / folder).glob(name)) for folder in FOLDERS), name


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_linked_names_are_defined_in_the_file_that_they_link_to(document: Path) -> None:
    for text, target in _links(document):
        name = re.fullmatch(r"`([\w.]+)(?:\(\))?`", text)
        file = document.parent / target
        if name and file.suffix in (".py", ".h", ".cpp", ".cu") and name[1] != file.name:
            assert name[1] in _names(file), f"{text} in {target}"


def test_the_picture_and_the_page_of_the_architecture_show_the_import_levels() -> None:
    contract = re.search(r"^layers = \[(.*?)^\]", (ROOT / "pyproject.toml").read_text("utf-8"), re.M | re.S)
    assert contract
    levels = [re.findall(r"\w+", line) for line in re.findall(r'"(.*)"', contract[1])]
    drawn = (ROOT / "docs" / "pictures" / "levels.svg").read_text("utf-8")
    heights: dict[str, list[str]] = {}
    for y, name in re.findall(r'class="name" x="[\d.]+" y="([\d.]+)">(\w+)<', drawn):
        heights.setdefault(y, []).append(name)
    assert [set(level) for _, level in sorted(heights.items(), key=lambda row: float(row[0]))] == [
        set(level) for level in levels
    ]
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    packages = page.partition("## Packages")[2].partition("\n## ")[0]
    described = {
        name for names in re.findall(r"^- \*\*(.*?)\*\*", packages, re.M) for name in names.split(", ")
    }
    assert described == {name for level in levels for name in level}


def test_the_index_lists_every_decision() -> None:
    folder = ROOT / "docs" / "adr"
    listed = [target for _, target in _links(folder / "README.md")]
    assert listed == sorted(path.name for path in folder.glob("[0-9]*.md"))
    for path in folder.glob("[0-9]*.md"):
        headings = re.findall(r"^## (.*)$", path.read_text("utf-8"), re.M)
        assert headings == ["Context", "Decision", "Alternatives", "Consequences"], path.name


def _commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """The commands of `neuralsdf` in code, each with the options that it is given."""
    code = re.findall(r"`(neuralsdf [^`]+)`", text)
    for block in re.findall(r"^```sh\n(.*?)^```$", text, re.M | re.S):
        code += re.findall(r"\bneuralsdf [^\n#]*", block)
    for command in code:
        words = re.sub(r'"[^"]*"?', "", command).split()
        yield words[1], [word for word in words[2:] if re.fullmatch(r"--?[a-z][a-z-]*", word)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_documented_commands_have_the_options_that_they_are_given(document: Path) -> None:
    group = LazyGroup(name="neuralsdf")
    context = click.Context(group)
    for name, options in _commands(document.read_text("utf-8")):
        command = group.get_command(context, name)
        assert command is not None, name
        known = {
            option for parameter in command.params for option in parameter.opts + parameter.secondary_opts
        }
        assert set(options) <= known, f"{name} {options}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_python_code_parses_and_its_imports_work(document: Path) -> None:
    for block in re.findall(r"^```python\n(.*?)^```$", document.read_text("utf-8"), re.M | re.S):
        imports = [node for node in ast.parse(block).body if isinstance(node, ast.Import | ast.ImportFrom)]
        exec(compile(ast.Module(imports, []), str(document), "exec"), {})


def test_the_checks_find_links_and_names() -> None:
    links = [link for document in DOCUMENTS for link in _links(document)]
    assert len(links) >= 100
    assert _file_names("see `fields/field.py`, tests/mesh/test_*.py and report.py") == {
        "fields/field.py",
        "tests/mesh/test_*.py",
    }
    commands = list(_commands((ROOT / "README.md").read_text("utf-8")))
    assert len(commands) >= 25
    assert ("convert", ["--target-error"]) in commands
    names = _names(ROOT / "neuralsdf" / "program" / "network.py")
    assert {"Network", "Architecture.layers"} <= names
    assert "layers" not in names

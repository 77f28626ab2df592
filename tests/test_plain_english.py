"""Docstrings, comments, messages and documents avoid phrases for which there are standard terms."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest

import neuralsdf

LIBRARY = Path(neuralsdf.__file__).parent
REPOSITORY = LIBRARY.parent

#: Packages and documents that are checked. The others follow as they are revised.
CHECKED = (
    *(
        f"neuralsdf/{name}.py"
        for name in ("array_types", "errors", "thread_count", "printable_text", "units")
    ),
    "neuralsdf/__init__.py",
    "neuralsdf/demo.py",
    "neuralsdf/files",
    "neuralsdf/geometry",
    "neuralsdf/program",
    "neuralsdf/compression",
    "neuralsdf/grid",
    "neuralsdf/backends",
    "neuralsdf/training",
    "neuralsdf/fields",
    "neuralsdf/render",
    "neuralsdf/csg",
    "neuralsdf/evaluation",
    "neuralsdf/latent_fields",
    "neuralsdf/storage",
    "neuralsdf/mesh",
    "neuralsdf/pipeline",
    "neuralsdf/batch",
    "neuralsdf/latent",
    "cli",
    "kernels",
    "docs",
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "tests",
)

_COUNTED = "bytes|floats|numbers?|points|pixels|rays?|samples|threads?|triangles|vertices|words"
_EACH = "block|cell|face|file|item|launch|line|pixel|point|ray|sample|shape|side|step|thread|vertex|warp"

#: Pattern, an example that it finds, and what to write instead.
PHRASES = [
    (r"\bwhat (came|comes|becomes) of (it|a|the)\b", "What came of it.", "result"),
    (r"\bway (forth|back)\b", "on the way forth", "forward pass, backward pass"),
    (
        r"\b(is|are|be) no (number|numbers|place|expression|digit)\b",
        "it may be no number",
        "NaN, not a number",
    ),
    (r"\bis none of (the|ours|\d|\{)", "a vertex that is none of the 8", "out of range"),
    (r"\bcalls? itself\b", "nothing calls itself along a tree", "no recursion"),
    (r"\b(a person (can|has|may|sees)|for a person)\b", "in a way that a person can mend", "user-facing"),
    (r"\blooks? at the clock\b", "from one look at the clock to the next", "clock checks"),
    (r"\b(come|comes|came) twice\b", "names that come twice", "duplicate names"),
    (r"\bhas no use (for|with)\b", "--faces has no use with -o", "cannot be combined with"),
    (r"\bin the mean\b", "the error in the mean", "on average, mean"),
    (r"\bas (it|they) likes?\b", "a sphere can turn as it likes", "arbitrarily"),
    (r"\bone (behind|in) the other\b|\bend to end\b", "packed one behind the other", "concatenated, nested"),
    (r"\b(the|its|their) (least|greatest)\b", "the least of the values", "minimum, maximum"),
    (r"\bshares? of (an?|its|their)\b", "a share of its extent", "fraction"),
    (r"\bsteepest\b", "where it is steepest", "maximum gradient norm"),
    (r"\btold apart\b", "bodies that touch are told apart", "separated, distinguished"),
    (r"\bthe wrong way round\b", "faces that are the wrong way round", "inverted"),
    (r"\bin a circle\b", "nested in a circle", "in a cycle"),
    (r"\bcannot be read here\b", "an encoding that cannot be read here", "unsupported"),
    (r"\bwhole or not at all\b", "written whole or not at all", "atomically"),
    (r"\b(is asked|asks? for)\b", "a surface is asked for", "request, query"),
    (r"\bmend(s|ed)?\b", "a higher resolution may mend that", "fix"),
    (r"\bleads? nowhere\b", "a link that leads nowhere", "dangling"),
    (r"\bwho (asks|finds|looks|prints)\b", "as someone asks who prints it", "users"),
    (r"\b(go|goes) by (the )?values\b", "shadows go by values", "use the values"),
    (r"\bprecision (does|do) for\b", "double precision does for it", "suffices"),
    (r"\b(field's slope|slope of its values)\b", "the field's slope", "gradient norm, Lipschitz constant"),
    (r"\bstranger('s)?\b", "a file from a stranger", "untrusted"),
    (r"\beats? (all )?the memory\b", "it must not eat the memory", "exhaust the memory"),
    (r"`\w+(Error|Warning)`,? where\b", "raises `ModelError` where it is damaged", "if"),
    (r"\braises? `\w+` for what\b", "raises `ValueError` for what cannot be fitted", "for an invalid ..."),
    (r"\b(has|have|having) no end\b", "a shape that has no end", "unbounded"),
    (r"\bnamed from [`\w' ]{,25} on\b", "files are named from its folder on", "relative to"),
    (r"\bthere is to say\b", "what there is to say of a data set", "report, properties"),
    (r"\btold (from|by) (outside|inside)\b", "how inside is told from outside", "inside/outside test"),
    (r"\bmay take turns\b", "threads may take turns", "iterations, alternate"),
    (r"\ball but (constant|zero|empty)\b", "a field that is all but constant", "almost"),
    (r"\bwould do\b", "the resolution that would do", "suffices, try"),
    (r"\basked for\b", "more faces than asked for", "requested"),
    (r"\b(go|goes|went) by\b(?! name)", "what bounds on the work go by", "use, depend on"),
    (
        r"(?<!there )\b(is|are|be) no (colour|distance|film|length|surface)s?\b",
        "'x' is no colour",
        "invalid, not a",
    ),
    (r"\bhow far off\b|\bfarther off\b", "how far off its surface is", "error, deviation"),
    (r"\bthat (it|they) (is|are) of\b", "the field that it is of", "its field"),
    (r"\bhemmed in\b", "darken what is hemmed in", "occluded"),
    (r"\ba hair (smaller|larger)\b", "a ball a hair smaller than the unit ball", "slightly"),
    (
        r"\blooked (at|for) (from|together)\b",
        "the sign where they were looked for from",
        "computed, searched",
    ),
    (
        r"\b(told|tell) (it |one |them )?from (it|a|an|the)\b",
        "a part that it can tell from a film",
        "separate",
    ),
    (r"\bwhat (\w+ )?rays? (met|meet|meets)\b", "what n rays met", "results of rays, hits"),
    (r"\b(gradients?|derivatives?|differentiate\w*) by\b", "its gradient by the weights", "with respect to"),
    (r"\bas long as (it|they|that) lives?\b", "zeros as long as it lives", "during its lifetime"),
    (r"\bof (equally|those|several) [a-z ]{,25}\bthe first\b", "of equally close ones the first", "on ties"),
    (
        r"\bso many (dimensions|floats|points|threads|weights)\b",
        "a workspace of so many floats",
        "the number of",
    ),
    (r"\bas good as (known|zero)\b", "such a row is as good as zero", "treated as zero"),
    (r"\bbegun again\b", "the stage may be begun again", "restarted, repeated"),
    (r"\bguards what follows\b", "a mutex guards what follows", "the members below"),
    (r"\bwhat (fills up|lies)\b", "what fills up the last vector", "a noun, such as padding"),
    (r"\bon its way (through|to)\b", "a block on its way through the network", "forward pass, evaluation"),
    (rf"\b({_COUNTED}) an? ({_EACH})\b", "two samples a step", "per"),
    (r"\A(Of|In) (a|an|each|the) [a-z ]{,30}\.\Z", "Of the hidden layers.", "a sentence with its noun"),
    (r"(?-i:\b(?!that\b|had\b)([a-z]{2,}) \1\b)", "the the field", "each word once"),
    (r"\b(has|have|having) a meaning\b", "only its sign has a meaning", "is meaningful"),
    (r"\b(is|are|was|were|be) (said|told)\b", "a missing file is said in one line", "reported"),
    (
        r"\b(that|what|which) (is|are) no\b(?! (longer|more|less|greater|larger|smaller))",
        "a file that is no mesh",
        "is not a",
    ),
    (r"\bcomes? back\b", "a field comes back exactly", "is read back, returned"),
    (r"\b(needs?|without) leave\b", "files outside of the folder need leave", "permission"),
    (r"\bbut for\b", "equal but for rounding", "except for, up to"),
    (r"\bmakes? no sense\b", "options that make no sense", "invalid"),
    (r"\bunasked\b|\basked (to|not to)\b", "kernels are not built unasked", "by default, on request"),
    (r"\b(no|some|any)body\b", "a network that nobody fitted", "users, processes"),
    (r"\binside out\b", "a body that is inside out", "inverted"),
    (r"\bstops? (no|nothing)\b", "a failure stops no other", "does not stop the others"),
    (r"\btaken (for|to be)\b", "text is not taken for numbers", "mistaken for, assumed to be"),
    (r"\bby force\b", "replaced only by force", "with `force`"),
    (r"\bwhere there (is|are) (one|none)\b", "on a GPU where there is one", "if there is one, if available"),
    (r"\b(is|are) not there\b", "a device that is not there", "missing, not available"),
]


def _python_texts(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of every string, with values left out, and of every block of comments."""
    tree = ast.parse(source)
    parts = {id(value) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for value in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            constants = (value.value if isinstance(value, ast.Constant) else "{}" for value in node.values)
            yield node.lineno, "".join(map(str, constants))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield node.lineno, node.value
    yield from _comments(source)


def _test_texts(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of every docstring, name of a test and block of comments, without other strings."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            yield node.body[0].lineno, ast.get_docstring(node) or ""
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield node.lineno, node.name.replace("_", " ")
    yield from _comments(source)


def _comments(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of every block of comments."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = [(t.start[0], t.string.lstrip("#: ")) for t in tokens if t.type == tokenize.COMMENT]
    for _, block in groupby(enumerate(comments), lambda item: item[1][0] - item[0]):
        lines = [comment for _, comment in block]
        yield lines[0][0], " ".join(text for _, text in lines)


def _cpp_texts(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of every string and of every block of comments, adjacent ones joined."""
    token = re.compile(r'"((?:\\.|[^"\\\n])*)"|//([^\n]*)|/\*(.*?)\*/', re.DOTALL)
    line, texts, kind, end = 1, list[str](), 0, 0
    for match in token.finditer(source):
        between = source[end : match.start()]
        if texts and (between.strip() or kind != match.lastindex):
            yield line, " ".join(texts) if kind > 1 else "".join(texts)
            texts = []
        if not texts:
            line = source.count("\n", 0, match.start()) + 1
        kind, end = match.lastindex or 0, match.end()
        texts.append(match[kind].strip() if kind > 1 else match[kind])
    if texts:
        yield line, " ".join(texts) if kind > 1 else "".join(texts)


def _cmake_texts(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of every block of comments, without indented code."""
    source = re.sub(r"^# {4}.*|//", "", source, flags=re.MULTILINE)
    yield from _cpp_texts(re.sub(r"^([^#\n]*)#", r"\1//", source, flags=re.MULTILINE))


def _markdown_texts(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of every paragraph, without code."""
    code = re.compile(r"^```.*?^```|(?<=\n\n)(    [^\n]*\n)+", re.MULTILINE | re.DOTALL)
    source = code.sub(lambda block: "\n" * block[0].count("\n"), source)
    line = 1
    for paragraph in source.split("\n\n"):
        yield line, re.sub(r"`[^`]*`", "`code`", paragraph)
        line += paragraph.count("\n") + 2


_READERS = {
    ".py": _python_texts,
    ".md": _markdown_texts,
    ".txt": _cmake_texts,
    **dict.fromkeys((".h", ".cpp", ".cu"), _cpp_texts),
}


def _texts() -> Iterator[tuple[str, str]]:
    """Place and text, on one line, of all that is checked."""
    for name in CHECKED:
        folder = (
            LIBRARY.joinpath(*name.split("/")[1:]) if name.startswith("neuralsdf/") else REPOSITORY / name
        )
        paths = sorted(folder.rglob("*")) if folder.is_dir() else [folder]
        for path in paths:
            read = _test_texts if name == "tests" and path.suffix == ".py" else _READERS.get(path.suffix)
            if read is None or "doctest" in path.parts:
                continue
            for line, text in read(path.read_text()):
                yield f"{path.relative_to(REPOSITORY)}:{line}", " ".join(text.split())


TEXTS = list(_texts()) if (REPOSITORY / "pyproject.toml").exists() else []


@pytest.mark.skipif(not TEXTS, reason="needs a checkout of the repository")
@pytest.mark.parametrize(("pattern", "example", "instead"), PHRASES, ids=[phrase[1] for phrase in PHRASES])
def test_phrases_with_a_standard_term_are_absent(pattern: str, example: str, instead: str) -> None:
    phrase = re.compile(pattern, re.IGNORECASE)
    assert phrase.search(example)
    found = [f"{place}: {match[0]!r}" for place, text in TEXTS for match in phrase.finditer(text)]
    assert not found, f"write: {instead}"


def test_texts_are_found() -> None:
    source = 'x = f"a {y} b"  # one\n\n# two\n#: three\ndef f():\n    """Doc."""\n'
    assert sorted(_python_texts(source)) == [(1, "a {} b"), (1, "one"), (3, "two three"), (6, "Doc.")]
    test = 'def test_a_b():\n    """Doc."""\n    x = "text"  # one\n'
    assert sorted(_test_texts(test)) == [(1, "test a b"), (2, "Doc."), (3, "one")]
    cpp = '// one\n// two\nf("a "\n  "b");  // three\n/* four\n */\n'
    assert list(_cpp_texts(cpp)) == [(1, "one two"), (3, "a b"), (4, "three"), (5, "four")]
    assert list(_cmake_texts("# one\n# two\nset(A b)  # three\n")) == [(1, "one two"), (3, "three")]
    document = "A `b`.\n\n```\nc\n```\n\n    d\n\nE\n"
    assert [(line, text.strip()) for line, text in _markdown_texts(document) if text.strip()] == [
        (1, "A `code`."),
        (9, "E"),
    ]

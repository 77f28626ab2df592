"""
shape_list.py
-------------
The shapes of a data set with their classes and splits: from `class/split/shape.ext`, `class/shape.ext`, or
the words after a mesh in a list. A class that has no split gets one by the seed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import PurePosixPath
from typing import NamedTuple

from ..errors import UsageError

SPLITS = ("train", "test", "validation")
#: Other words for a split in a data set's folders.
_SYNONYMS = {"val": "validation", "valid": "validation", "training": "train", "testing": "test"}

#: The class of shapes that lie in no folder.
NO_CLASS = "shapes"


class Shape(NamedTuple):
    """A shape of a data set. name: its path in the data set. split: one of `SPLITS`, or "" if not known."""

    name: str
    category: str
    split: str


def classified(names: Iterable[str]) -> list[Shape]:
    """Shapes from their paths in a data set, in order of name.

    The split is the last folder that is called `train`, `test` or `validation`; the class is the folder above
    it, or the shape's folder.
    """
    shapes = []
    for name in sorted(names):
        *folders, _ = PurePosixPath(name).parts
        split = ""
        for i in reversed(range(len(folders))):
            word = _SYNONYMS.get(folders[i].lower(), folders[i].lower())
            if word in SPLITS:
                split = word
                del folders[i]
                break
        shapes.append(Shape(name, folders[-1] if folders else NO_CLASS, split))
    return shapes


def with_labels(shapes: Sequence[Shape], labels: Mapping[str, tuple[str, ...]], source: str) -> list[Shape]:
    """The shapes with the splits and classes of a list, instead of those from their paths.

    labels: the words after a mesh by its name: a split, or a split and a class. source: of the list, for
    messages. Raises `UsageError` for other words.
    """
    labelled = []
    for shape in shapes:
        word, *classes = labels.get(shape.name, (shape.split,))
        split = _SYNONYMS.get(word.lower(), word.lower())
        if shape.name in labels and split not in SPLITS:
            raise UsageError(
                f"{source}: {shape.name} has the split {word!r}; it is one of {', '.join(SPLITS)}"
            )
        if len(classes) > 1:
            raise UsageError(
                f"{source}: {shape.name} is followed by {' '.join((word, *classes))!r}; "
                "write a split and, if wanted, a class of one word"
            )
        labelled.append(shape._replace(split=split, category=classes[0] if classes else shape.category))
    return labelled


def with_splits(shapes: Sequence[Shape], test: float, seed: int) -> list[Shape]:
    """The shapes; in classes without any split, a fraction `test` of the shapes is in the split "test".

    Which ones depends on the seed and their names only. At least one shape of a class is in either split, if
    it has two. Shapes without a split in a class with splits are for training.
    """
    if not 0 <= test < 1:
        raise UsageError(f"`test_fraction={test}` is at least 0 and below 1")
    classes: dict[str, list[Shape]] = defaultdict(list)
    for shape in shapes:
        classes[shape.category].append(shape)
    split = {}
    for members in classes.values():
        unsplit = not any(shape.split for shape in members)
        count = min(max(round(test * len(members)), 1), len(members) - 1) if unsplit and test else 0
        order = sorted(members, key=lambda shape: sha256(f"{seed} {shape.name}".encode()).digest())
        chosen = {shape.name for shape in order[:count]}
        for shape in members:
            split[shape.name] = shape.split or ("test" if shape.name in chosen else "train")
    return [shape._replace(split=split[shape.name]) for shape in shapes]

"""
input_folder.py
---------------
The meshes and point clouds of a folder that are to be reconstructed, and the files of their reconstructions.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ..batch.find_meshes import find_sources
from ..errors import UsageError

#: Suffixes of point clouds besides .ply.
CLOUDS = (".npy", ".xyz", ".txt", ".csv", ".pts")


class Inputs(NamedTuple):
    """Input files with their output files, in order of name. unlisted: folders that could not be listed."""

    files: tuple[tuple[Path, Path], ...]
    unlisted: tuple[str, ...] = ()


def find_inputs(source: str, out: Path, suffix: str) -> Inputs:
    """The meshes and point clouds of a folder or a pattern, without those in the output folder.

    Outputs have the names of the inputs, with another suffix, and are in the same subfolders. Raises
    `UsageError` if there are none, and if two inputs would have the same output.
    """
    if os.path.isdir(source) and os.path.realpath(source) == os.path.realpath(out):
        raise UsageError(f"{out}: is the folder of the inputs; name another with `path=`")
    found = find_sources(source, out, CLOUDS)
    outputs: dict[Path, Path] = {}
    for name, path in found.meshes:
        if Path(os.path.realpath(out)) in Path(os.path.realpath(path)).parents:
            continue
        output = out / PurePosixPath(name).with_suffix(suffix)
        if output in outputs:
            raise UsageError(f"{outputs[output]} and {path} would both be written to {output}; rename one")
        outputs[output] = path
    if not outputs:
        raise UsageError(f"{source}: has no meshes or point clouds besides those in {out}")
    return Inputs(tuple((path, output) for output, path in outputs.items()), found.unlisted)


def is_many(source: str | Path) -> bool:
    """Whether a source stands for several inputs: a folder or a pattern."""
    path = Path(source)
    return path.is_dir() or (not path.exists() and any(sign in str(path) for sign in "*?["))

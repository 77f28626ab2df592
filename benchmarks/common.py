"""
common.py
---------
Shared by the benchmarks: the folder of meshes, and the description of the machine.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from neuralsdf.backends import backend_status, get_backend
from neuralsdf.thread_count import available_cores, threads

if TYPE_CHECKING:
    from neuralsdf.fields.field import NeuralField


def meshes() -> Path:
    """The folder of meshes, in NEURALSDF_TEST_DATA or in ../shared beside the repository."""
    default = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("NEURALSDF_TEST_DATA", default)).resolve() / "meshes"
    if not folder.is_dir():
        raise SystemExit(f"no meshes at {folder}: set NEURALSDF_TEST_DATA, or give the paths of meshes")
    return folder


def model_or_bunny(path: str | None) -> NeuralField:
    """The model in a file; without one, the bunny is converted."""
    from neuralsdf.pipeline.convert import (
        fit_mesh,
    )  # imported late: scripts that measure memory import this file
    from neuralsdf.storage import open_model

    return open_model(path) if path else fit_mesh(meshes() / "stanford-bunny.obj").field


def machine(backend: str | None = None) -> str:
    """Description of the machine: cores, threads and backend."""
    name = get_backend(backend).name
    return f"{available_cores()} cores, {threads()} threads, backend {name} ({backend_status(name).detail})"

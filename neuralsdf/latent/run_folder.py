"""
run_folder.py
-------------
The files of a training run:

    config.toml            all settings
    log.jsonl              a line for every report: step, seconds, losses, learning rates, validation
    tensorboard/           the numbers of the log for TensorBoard, if it is installed
    last.safetensors       the latest checkpoint, from which the run continues
    shapes/, prepared/     meshes that were generated, and samples that were drawn, for this run alone
    held_out.png           shapes that were not trained on, beside their reconstructions
    best.safetensors       the checkpoint of the best validation
    decoder.safetensors    the decoder of that checkpoint, which latent fields refer to
    codes.safetensors      the codes of the training shapes (n, c), and their names
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ..array_types import FloatArray
from ..errors import FileError, ModelError, OutputError
from ..files.atomic_write import make_folder, whole_file
from ..files.bounded_input import read_file
from ..latent_fields.tensor_file import read_tensors, write_tensors

#: Maximum size of a log in bytes.
_MAX_LOG = 1 << 30


@dataclass(frozen=True)
class RunFolder:
    """The paths of a run, and its log."""

    path: Path

    @property
    def config(self) -> Path:
        """The settings."""
        return self.path / "config.toml"

    @property
    def log(self) -> Path:
        """The log."""
        return self.path / "log.jsonl"

    @property
    def events(self) -> Path:
        """The folder for TensorBoard."""
        return self.path / "tensorboard"

    @property
    def shapes(self) -> Path:
        """Meshes that were generated for this run."""
        return self.path / "shapes"

    @property
    def picture(self) -> Path:
        """The picture at the end of a training."""
        return self.path / "held_out.png"

    @property
    def prepared(self) -> Path:
        """The prepared data set, if it was made for this run."""
        return self.path / "prepared"

    @property
    def last(self) -> Path:
        """The latest checkpoint."""
        return self.path / "last.safetensors"

    @property
    def best(self) -> Path:
        """The best checkpoint."""
        return self.path / "best.safetensors"

    @property
    def decoder(self) -> Path:
        """The best decoder."""
        return self.path / "decoder.safetensors"

    @property
    def codes(self) -> Path:
        """The codes of the training shapes."""
        return self.path / "codes.safetensors"

    def check_is_run(self) -> None:
        """Raise `FileError` if the folder holds no decoder."""
        if not self.decoder.is_file():
            reason = "holds no trained model" if self.path.is_dir() else "no such folder"
            raise FileError(self.path, reason, "train one with neuralsdf train-latent")

    def check_free(self, settings: str) -> None:
        """Raise `OutputError` for files in the folder that a training with these settings did not write."""
        files = (self.config, self.log, self.best, self.decoder, self.codes)
        there = [path for path in files if os.path.lexists(path)]
        own = self.config.is_file() and self.config.read_bytes() == settings.encode()
        if there and not own:
            raise OutputError(there[0], "exists already, and is not of this training", "name another folder")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training in this folder; raises `OutputError` if one does."""
        make_folder(self.path)
        with (self.path / ".lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise OutputError(
                    self.path, "another training is running in it", "wait for it, or name another folder"
                ) from error
            yield

    def begin_log(self, step: int) -> None:
        """Drop the lines of the log after a step, from which the run continues."""
        kept = [line for line in self.read_log() if line["step"] <= step] if step else []
        with whole_file(self.log) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))

    def write_log(self, **values: Any) -> None:
        """Append a line to the log."""
        with self.log.open("a") as stream:
            stream.write(json.dumps(values) + "\n")

    def read_log(self) -> list[dict[str, Any]]:
        """The lines of the log; a last one that was cut short is left out."""
        if not self.log.exists():
            return []
        lines = []
        for text in read_file(self.log, FileError, "a log", _MAX_LOG).data.split(b"\n"):
            try:
                line = json.loads(text)
            except (ValueError, RecursionError):
                continue
            if isinstance(line, dict) and isinstance(line.get("step"), int):
                lines.append(line)
        return lines


def write_codes(path: Path, codes: FloatArray, names: list[str]) -> None:
    """Write codes (n, c) of shapes with names."""
    write_tensors(path, {"codes": codes}, {"names": json.dumps(names)})


def is_name(name: object) -> bool:
    """Whether this is a shape's path in a data set, in the form that `PurePosixPath` gives it."""
    return isinstance(name, str) and bool(PurePosixPath(name).name) and str(PurePosixPath(name)) == name


def read_codes(path: Path) -> dict[str, FloatArray]:
    """Codes (c,) by name; raises `ModelError` for a file that is damaged."""
    content = read_tensors(path, kind="the codes of a training")
    codes = content.tensors.get("codes")
    try:
        names = json.loads(content.metadata.get("names", ""))
    except (ValueError, RecursionError):
        names = None
    if (
        codes is None
        or not codes.size
        or codes.dtype != np.float32
        or codes.ndim != 2
        or not np.isfinite(codes).all()
    ):
        raise ModelError(path, "holds no codes", "train again")
    if not isinstance(names, list) or len(names) != len(codes) or not all(map(is_name, names)):
        raise ModelError(path, "its names do not belong to its codes", "train again")
    return dict(zip(names, codes, strict=True))

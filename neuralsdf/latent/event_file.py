"""
event_file.py
-------------
The numbers of a training's log as an event file of TensorBoard, if the package tensorboard is installed.

Written with tensorboard's own record writer, because torch.utils.tensorboard imports TensorFlow where that is
installed.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..files.atomic_write import make_folder


class EventFile:
    """An event file in a folder; step: from which a training continues, so later events are dropped.

    Nothing is written without the package tensorboard.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self._events: Any = None
        # A package that is broken, such as by its version of protobuf, raises any exception when it is
        # imported.
        with suppress(Exception):
            from tensorboard.compat.proto import event_pb2
            from tensorboard.summary.writer.record_writer import RecordWriter

            self._events, self._record_writer = event_pb2, RecordWriter
        if self._events is None:
            return
        name = f"events.out.tfevents.{time.time():017.6f}.{socket.gethostname()}.{os.getpid()}"
        self._writer = self._record_writer((make_folder(folder) / name).open("wb"))
        self._write(file_version="brain.Event:2")
        if step:
            started = self._events.SessionLog(status=self._events.SessionLog.START)
            self._write(step=step + 1, session_log=started)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add numbers at a step, by name."""
        if self._events is None:
            return
        message = self._events.Event(wall_time=time.time(), step=step)
        for name, value in values.items():
            message.summary.value.add(tag=name, simple_value=value)
        self._writer.write(message.SerializeToString())
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        if self._events is not None:
            self._writer.close()

    def _write(self, **fields: Any) -> None:
        self._writer.write(self._events.Event(wall_time=time.time(), **fields).SerializeToString())
        self._writer.flush()

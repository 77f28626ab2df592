"""
report_table.py
---------------
The table of a report: CSV with one row per shape.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..printable_text import printable
from .job import Reported
from .shape_record import Record

_BEFORE = "name", "state", "cause", "reason", "source", "source_bytes", "result_bytes", "target_met"


def write_table(path: Path, records: Iterable[Record], reported: Reported) -> None:
    """Write the table to `path`; reported: gives the columns of the job."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        # All text is quoted, because some spreadsheets also split cells at semicolons.
        writer = csv.writer(stream, quoting=csv.QUOTE_NONNUMERIC)
        writer.writerows([_cell(value) for value in row] for row in _rows(records, reported))


def _rows(records: Iterable[Record], reported: Reported) -> Iterator[list[Any]]:
    """The header, then the rows; missing values are None."""
    stages = *reported.stages, "lost"
    yield [*_BEFORE, *reported.columns, *(f"seconds_{stage}" for stage in stages), "warnings"]
    for record in records:
        yield [
            *(getattr(record, column) for column in _BEFORE),
            *(record.columns.get(column) for column in reported.columns),
            *(record.seconds.get(stage) for stage in stages),
            "; ".join(record.warnings),
        ]


def _cell(value: Any) -> Any:
    """A value as a cell. Text that a spreadsheet would interpret as a formula gets a leading apostrophe."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.lstrip()[:1] in _FORMULA else text


#: Characters that start a formula, including full-width forms.
_FORMULA = tuple("=+-@＝＋－＠")

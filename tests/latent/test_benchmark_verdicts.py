"""The verdicts of the benchmarks of latent models."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def verdicts() -> ModuleType:
    """The module, which is not installed."""
    path = Path(__file__).parents[2] / "benchmarks" / "latent" / "verdicts.py"
    spec = importlib.util.spec_from_file_location("verdicts", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("effects", "expected"),
    [
        ([0.5, 0.6, 0.7], "agrees"),
        ([-0.5, -0.6, -0.7], "disagrees"),
        ([0.1, 0.6, -0.2], "within the spread"),
        ([0.1, 0.3, 0.5], "within the spread"),  # all positive, but the seeds differ by more than the mean
        ([0.0, 0.0], "within the spread"),
        ([1e-3], "agrees"),
    ],
)
def test_a_verdict_needs_an_effect_larger_than_the_range_of_the_seeds(
    verdicts: ModuleType, effects: list[float], expected: str
) -> None:
    assert verdicts.verdict(effects) == expected


def test_logarithms_of_ratios_treat_growth_and_decline_alike(verdicts: ModuleType) -> None:
    assert verdicts.log_ratio([2.0, 0.5], 1.0) == pytest.approx([math.log(2), -math.log(2)])


@pytest.mark.parametrize(
    ("ious", "expected"),
    [
        ([0.1, 0.5, 0.7, 0.7, 0.705, 0.7, 0.69, 0.7], True),
        ([0.1, 0.5, 0.7, 0.7, 0.705, 0.7, 0.69, 0.711], False),
        ([0.9, 0.8, 0.7, 0.6, 0.5, 0.4], True),  # worse is not an improvement
        ([0.5] * 5, False),  # too few for a verdict
    ],
)
def test_a_plateau_is_a_quarter_of_the_validations_without_gain(
    verdicts: ModuleType, ious: list[float], expected: bool
) -> None:
    assert verdicts.at_plateau(ious) is expected


def test_a_line_names_both_verdicts_if_they_differ(verdicts: ModuleType) -> None:
    effects = ([1.0, 1.1], [-1.0, -1.1])
    line = verdicts.Line("error", [0.02, 0.03], [0.01, 0.01], 0.001, effects).text("*")
    expected = "error 0.0250 ±0.0050 0.0100 ±0.0000* 0.0010 agrees (at the plateau: disagrees)"
    assert " ".join(line.split()) == expected

"""
code_search.py
--------------
Options of the search for a latent code; their values are arguments of `InferenceSettings`.
"""

from __future__ import annotations

import click

from . import options
from .number_types import WholeNumber


def code_search(function: options.Function) -> options.Function:
    """Add `--iterations`, `--starts` and `--seed`, passed as `iterations: int, starts: int, seed: int`."""
    iterations = click.option(
        "--iterations",
        type=WholeNumber(1, 10**6),
        default=800,
        show_default=True,
        metavar="N",
        help="Steps in which the code is found, from each start.",
    )
    starts = click.option(
        "--starts",
        type=WholeNumber(1, 1000),
        default=4,
        show_default=True,
        metavar="N",
        help="Starts of the search; the best code is used.",
    )
    return iterations(starts(options.seed(function)))

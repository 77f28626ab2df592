"""The options of a batch of conversions."""

from __future__ import annotations

import json
import pickle
from dataclasses import fields, replace
from typing import Any

import pytest

from neuralsdf.batch.conversion_recipe import Recipe
from neuralsdf.batch.convert_job import ConvertJob
from neuralsdf.errors import UsageError
from neuralsdf.program.network import Architecture
from neuralsdf.training.fit_settings import Training
from neuralsdf.training.sampling import Density
from neuralsdf.training.size_search import Target

from ..helpers.batch_runs import (
    JOB,
    RECIPE,
)


def test_a_weight_file_is_refused() -> None:
    with pytest.raises(UsageError, match="not a file"):
        Recipe(weight="weights.npy")


def test_options_that_exclude_grouped_fits() -> None:
    for alone in (
        {"target": Target(0.1)},
        {"training": Training(patience=3)},
        {"training": Training(seconds=1)},
    ):
        with pytest.raises(UsageError, match=r"`together=True` with `(target_error|time)=`"):
            replace(RECIPE, together=True, **alone)


def test_a_key_depends_on_every_option() -> None:
    others: dict[str, Any] = {
        "architecture": Architecture.uniform(2, 9),
        "density": Density(beta=1.0),
        "samples": 1001,
        "training": Training(epochs=1, batch=101),
        "sign": "parity",
        "thickness": 0.25,
        "weight": "curvature",
        "precision": "f16",
        "target": Target(0.1, mesh_units=True),
        "seed": 1,
        "together": True,
        "unit": "mm",
        "measure": False,
    }
    assert others.keys() == {option.name for option in fields(Recipe)}
    recipes = [RECIPE, *(replace(RECIPE, **{name: value}) for name, value in others.items())]
    keys = [ConvertJob(recipe).key("a") for recipe in recipes]
    assert len({*keys, JOB.key("b")}) == len(others) + 2
    assert ConvertJob(RECIPE, "torch").key("a") == JOB.key("a")  # the device is not an option
    for recipe in recipes:
        assert json.loads(json.dumps(recipe.options())) == recipe.options()
        assert pickle.loads(pickle.dumps(ConvertJob(recipe))) == ConvertJob(recipe)

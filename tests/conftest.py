"""Fixtures that the whole suite shares."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from neuralsdf.backends.cpu import NativeBackend
from neuralsdf.thread_count import set_threads

from .helpers.core import ISAS
from .helpers.quick_metrics import quick_metrics

# pytest-xdist runs a process per core: one thread each, set before libigl and torch read it.
set_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same result each time, also on a busy machine.
settings.register_profile(
    "steady", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("steady")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip slow tests unless NEURALSDF_SLOW_TESTS is set; run the README's commands first."""
    if "NEURALSDF_SLOW_TESTS" not in os.environ:
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="slow: set NEURALSDF_SLOW_TESTS=1"))
    items.sort(key=lambda item: item.path.name != "test_readme.py")


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of private test data (real meshes, the paper authors' models); skips where it is absent."""
    default = Path(__file__).resolve().parents[1] / ".." / "shared"
    folder = Path(os.environ.get("NEURALSDF_TEST_DATA", default)).resolve()
    if not (folder / "meshes").is_dir():
        pytest.skip(
            f"no test data at {folder}: set NEURALSDF_TEST_DATA to a folder with meshes/ and author-models/"
        )
    return folder


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Restore the number of threads of the process, which commands set."""
    yield
    set_threads(1)


@pytest.fixture(name="quick_metrics")
def with_quick_metrics() -> Iterator[None]:
    """Metrics from few points and coarse surfaces during a test of something else."""
    with quick_metrics():
        yield


@pytest.fixture(params=ISAS or ["none"])
def core_backend(request: pytest.FixtureRequest) -> NativeBackend:
    """The backend of the C++ core, for every instruction set that runs here."""
    if not ISAS:
        pytest.skip("the C++ core was not built")
    return NativeBackend(request.param)

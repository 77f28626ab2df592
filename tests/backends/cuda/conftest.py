"""The CUDA backend on the host, from the source that nvcc compiles, and on a GPU if there is one."""

from __future__ import annotations

import pytest

from neuralsdf import backends
from neuralsdf.backends import get_backend
from neuralsdf.backends.cuda import CudaBackend, device

from ...helpers.cuda_host import (
    COMPILER,
    DEVICES,
    HostDriver,
    build,
    installed,
    the_gpu,
)


@pytest.fixture(scope="session")
def library():
    if COMPILER is None:
        pytest.skip("no C++ compiler")
    return build()


@pytest.fixture(autouse=True)
def own_settings(monkeypatch):
    """Clear settings of the caller and backends of other tests."""
    for name in ("NEURALSDF_BACKEND", "NEURALSDF_REQUIRE_CUDA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(backends, "_loaded", {})


@pytest.fixture
def driver(library, monkeypatch, tmp_path):
    """A stand-in for pycuda.driver that launches on the host."""
    return installed(HostDriver(library), monkeypatch, tmp_path)


@pytest.fixture(params=DEVICES)
def backend(request):
    """The backend on the host driver, and on the GPU if there is one."""
    if request.param == "host":
        request.getfixturevalue("driver")
        return CudaBackend(device.Device(), get_backend("torch"))
    return CudaBackend(the_gpu(), get_backend("torch"))

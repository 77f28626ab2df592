"""The CUDA backend on the host, from the source that nvcc compiles, and on a GPU where there is one."""

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
    """No setting of the caller's, and no backend of another test's."""
    for name in ("NEURALSDF_BACKEND", "NEURALSDF_REQUIRE_CUDA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(backends, "_loaded", {})


@pytest.fixture
def driver(library, monkeypatch, tmp_path):
    """A stand-in for pycuda.driver that launches on the host."""
    return installed(HostDriver(library), monkeypatch, tmp_path)


@pytest.fixture(params=DEVICES)
def backend(request):
    """The backend on the host's stand-in, and on the GPU where there is one."""
    if request.param == "host":
        request.getfixturevalue("driver")
        return CudaBackend(device.Device(), get_backend("torch"))
    return CudaBackend(the_gpu(), get_backend("torch"))

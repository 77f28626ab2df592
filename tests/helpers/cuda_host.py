"""A CUDA driver whose device is the CPU. It replaces pycuda.driver: a launch runs the kernel's source,
compiled by the C++ compiler (cuda_host.cpp). So tests cover the whole backend except the GPU."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from functools import cache, partial
from importlib.machinery import ModuleSpec
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from neuralsdf.backends import backend_status, cuda_required
from neuralsdf.backends.cuda import device

REPOSITORY = Path(__file__).resolve().parents[2]
COMPILER = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
FLAGS = (
    "-std=c++17",
    "-O2",
    "-g0",
    "-fPIC",
    "-shared",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-unknown-pragmas",
)

_FAILURES = {
    0: "there is no such kernel",
    2: "the kernel wrote behind its shared memory",
    3: "the struct of arguments has another size in C++",
}


@cache
def build() -> ctypes.CDLL:
    """The kernels for the host, built once for all tests."""
    headers = REPOSITORY / "kernels" / "cuda"
    source = REPOSITORY / "tests" / "helpers" / "cuda_host.cpp"
    with TemporaryDirectory() as folder:
        library = Path(folder) / "cuda_host.so"
        subprocess.run([COMPILER, *FLAGS, f"-I{headers}", "-o", library, source], check=True)
        return ctypes.CDLL(str(library))


class HostDriver:
    """The part of pycuda.driver that the backend uses, with pycuda's signatures and checks.

    launches: (kernel, blocks, threads, shared bytes) of every launch. falling: run threads in falling order.
    memory: bytes that may be allocated at once. peak: the maximum so far.
    """

    Error = RuntimeError
    MemoryError = type("MemoryError", (Error,), {})
    name = "this processor"

    def __init__(
        self, library: ctypes.CDLL, *, multiprocessors: int = 2, shared_limit: int = 232_448
    ) -> None:
        self._library = library
        self._values = {
            "MULTIPROCESSOR_COUNT": multiprocessors,
            "MAX_SHARED_MEMORY_PER_BLOCK_OPTIN": shared_limit,
            "MAX_SHARED_MEMORY_PER_MULTIPROCESSOR": shared_limit + 1024,
            "MAX_REGISTERS_PER_MULTIPROCESSOR": 65536,
        }
        self.device_attribute = SimpleNamespace(**{name: name for name in self._values})
        self.function_attribute = SimpleNamespace(MAX_DYNAMIC_SHARED_SIZE_BYTES="dynamic")
        self.launches: list[tuple[str, int, int, int]] = []
        self.allocated: dict[int, HostMemory] = {}
        self.memory, self.peak = 1 << 40, 0
        self.falling = False
        self.depth = 0  # contexts pushed
        self.Context = SimpleNamespace(pop=self._pop)

    def init(self) -> None: ...

    def Device(self, index: int) -> SimpleNamespace:
        assert index == 0
        return SimpleNamespace(
            name=lambda: self.name,
            get_attribute=self._values.__getitem__,
            retain_primary_context=lambda: SimpleNamespace(push=self._push),
        )

    def _push(self) -> None:
        self.depth += 1

    def _pop(self) -> None:
        self.depth -= 1

    def mem_alloc(self, nbytes: int) -> HostMemory:
        assert self.depth == 1
        assert nbytes > 0  # CUDA refuses to allocate nothing
        allocated = nbytes + sum(memory.nbytes for memory in self.allocated.values())
        if allocated > self.memory:
            raise self.MemoryError("cuMemAlloc failed: out of memory")
        self.peak = max(self.peak, allocated)
        return HostMemory(self, nbytes)

    def memcpy_htod(self, dest: object, src: np.ndarray) -> None:
        self._view(dest, src.nbytes)[:] = np.ascontiguousarray(src).reshape(-1).view(np.uint8)

    def memcpy_dtoh(self, dest: np.ndarray, src: object) -> None:
        assert dest.flags.c_contiguous
        dest.reshape(-1).view(np.uint8)[:] = self._view(src, dest.nbytes)

    def memset_d8(self, dest: object, data: int, count: int) -> None:
        self._view(dest, count)[:] = data

    def _view(self, address: object, nbytes: int) -> np.ndarray:
        """The bytes at an address, which must lie in one allocation, as on a device."""
        assert self.depth == 1
        assert nbytes > 0
        start = int(address)
        for first, memory in self.allocated.items():
            if first <= start and start + nbytes <= first + memory.asked:
                return memory.data[start - first : start - first + nbytes]
        raise AssertionError("a copy outside what is allocated")

    def module_from_file(self, path: str) -> SimpleNamespace:
        return SimpleNamespace(get_function=lambda name: HostFunction(self, name))

    def run(self, name: str, blocks: int, threads: int, shared: int, arguments: bytes) -> None:
        assert self.depth == 1
        self.launches.append((name, blocks, threads, shared))
        code = self._library.launch(
            name.encode(), blocks, threads, ctypes.c_size_t(shared), arguments,
            ctypes.c_size_t(len(arguments)), int(self.falling),
        )  # fmt: skip
        assert code == 1, f"{name}: {_FAILURES[code]}"


class HostPool:
    """pycuda.tools.DeviceMemoryPool: freed memory is kept for allocations of about its size."""

    def __init__(self, driver: HostDriver) -> None:
        assert driver.depth == 1
        self._driver = driver
        driver.pool = self
        self.held: dict[int, list[HostMemory]] = {}

    def allocate(self, nbytes: int) -> PooledMemory:
        assert nbytes > 0
        step = 1 << max(0, nbytes.bit_length() - 3)
        size = (nbytes // step + 1) * step - 1
        held = self.held.setdefault(size, [])
        if not held:
            try:
                held.append(self._driver.mem_alloc(size))
            except HostDriver.MemoryError:
                self.free_held()
                held.append(self._driver.mem_alloc(size))
        return PooledMemory(held.pop(), nbytes, held)

    def free_held(self) -> None:
        self._driver._push()  # as pycuda's does
        for held in self.held.values():
            while held:
                held.pop().free()
        self._driver._pop()

    stop_holding = free_held


class PooledMemory:
    """An allocation of a pool."""

    def __init__(self, memory: HostMemory, nbytes: int, held: list[HostMemory]) -> None:
        self._memory, self._held = memory, held
        memory.asked = nbytes
        memory.data[:] = 0xFF

    def __int__(self) -> int:
        return int(self._memory)

    def free(self) -> None:
        assert self._memory not in self._held
        self._held.append(self._memory)


class HostMemory:
    """An allocation, aligned as on a device. asked: the bytes that the backend requested."""

    def __init__(self, driver: HostDriver, nbytes: int) -> None:
        self.nbytes = self.asked = nbytes
        whole = np.full(nbytes + 256, 0xFF, np.uint8)  # NaN until it is written
        self._first = -whole.ctypes.data % 256
        self.data = whole[self._first : self._first + nbytes]
        self._driver = driver
        driver.allocated[int(self)] = self

    def __int__(self) -> int:
        return int(self.data.ctypes.data)

    def free(self) -> None:
        assert self._driver.depth >= 1
        del self._driver.allocated[int(self)]


class HostFunction:
    """A kernel; checks the parameters of a launch."""

    def __init__(self, driver: HostDriver, name: str) -> None:
        self._driver, self._name = driver, name
        self._dynamic = 48 << 10

    def set_attribute(self, attribute: str, value: int) -> None:
        assert attribute == "dynamic"
        self._dynamic = value

    def __call__(self, arguments: np.void, *, grid: tuple, block: tuple, shared: int) -> None:
        assert isinstance(arguments, np.void)
        assert 1 <= grid[0] < 2**31
        assert grid[1:] == (1,)
        assert block[1:] == (1, 1)
        assert 32 <= block[0] <= 1024
        assert block[0] % 32 == 0
        assert shared <= self._dynamic <= self._driver._values["MAX_SHARED_MEMORY_PER_BLOCK_OPTIN"]
        self._driver.run(self._name, grid[0], block[0], shared, arguments.tobytes())


#: Devices that the tests run on: the host, and a GPU if there is one or it is required.
DEVICES = ["host", "gpu"] if cuda_required() or backend_status("cuda").available else ["host"]


def installed(driver, monkeypatch, tmp_path):
    """The driver, importable as pycuda.driver until the test ends."""
    package = ModuleType("pycuda")
    package.driver = driver
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)
    tools = ModuleType("pycuda.tools")
    tools.DeviceMemoryPool = partial(HostPool, driver)
    monkeypatch.setitem(sys.modules, "pycuda.tools", tools)
    fatbin = tmp_path / "all.fatbin"
    fatbin.touch()
    monkeypatch.setattr(device, "fatbins", lambda: [fatbin])
    monkeypatch.setattr(device, "_first_device", lambda: (driver.name, (9, 0)))
    package.__spec__ = ModuleSpec("pycuda", None)
    return driver


@cache
def the_gpu():
    if not backend_status("cuda").available:
        pytest.fail(backend_status("cuda").detail)
    return device.Device()

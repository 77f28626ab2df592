"""
device.py
---------
The CUDA device, through pycuda: availability, the kernels' fatbins, persistent buffers, and launches. All
calls run in the device's primary context, which torch shares, and only inside `current`.
"""

from __future__ import annotations

import atexit
import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np
import numpy.typing as npt

from ... import kernels
from ...errors import BackendError

#: Points on the device at once: some 100 MB per buffer, for inputs of any size.
BLOCK = 1 << 23

#: Ampere; the kernels use its features.
MIN_CAPABILITY = (8, 0)

#: Limits on blocks per multiprocessor; the bytes are what CUDA itself reserves for each block.
_REGISTERS_A_THREAD, _RESERVED_SHARED = 128, 1024

_COMPUTE_CAPABILITY = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR


#: Command that builds the kernels and installs pycuda.
INSTALL = "NEURALSDF_CUDA=1 pip install '.[cuda]'"


def fatbins() -> list[Path]:
    """The compiled kernels, built by setup.py with NEURALSDF_CUDA=1."""
    return sorted((Path(kernels.__path__[0]) / "cuda").glob("*.fatbin"))


def missing() -> str | None:
    """Why this machine cannot run the CUDA kernels, with the remedy; None if it can.

    Imports neither pycuda nor torch.
    """
    if not fatbins():
        return (
            f"the CUDA kernels were not built; with CUDA's compiler (nvcc) run {INSTALL} in the source folder"
        )
    if find_spec("pycuda") is None:
        return f"the CUDA kernels need pycuda, which is not installed; run {INSTALL} in the source folder"
    found = _first_device()
    if isinstance(found, str):
        return found
    name, capability = found
    if capability < MIN_CAPABILITY:
        has = ".".join(map(str, capability))
        return f"{name} has compute capability {has}; the CUDA kernels need 8.0 (Ampere)"
    return None


def name() -> str:
    """Name of the first CUDA device; "" if there is none."""
    found = _first_device()
    return "" if isinstance(found, str) else found[0]


def _first_device() -> tuple[str, tuple[int, int]] | str:
    """Name and compute capability of the first device, or why there is none, from the driver directly."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no CUDA driver (libcuda.so.1); install NVIDIA's driver"
    count, device = ctypes.c_int(0), ctypes.c_int(0)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        return "the CUDA driver finds no GPU; see nvidia-smi and CUDA_VISIBLE_DEVICES"
    driver.cuDeviceGet(ctypes.byref(device), 0)
    text = ctypes.create_string_buffer(256)
    driver.cuDeviceGetName(text, len(text), device)
    capability = []
    for attribute in _COMPUTE_CAPABILITY:
        value = ctypes.c_int(0)
        driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        capability.append(value.value)
    return text.value.decode(errors="replace"), (capability[0], capability[1])


class Device:
    """The first CUDA device (set CUDA_VISIBLE_DEVICES to choose another).

    name: device name. multiprocessors: their number. shared_limit: maximum shared memory per block, in bytes.
    Only one thread at a time can use the device; others wait in `current`.
    """

    def __init__(self) -> None:
        import pycuda.driver as driver
        from pycuda.tools import DeviceMemoryPool

        self._driver: Any = driver
        driver.init()
        device = driver.Device(0)
        attribute = driver.device_attribute
        self.name = str(device.name())
        self.multiprocessors = int(device.get_attribute(attribute.MULTIPROCESSOR_COUNT))
        self.shared_limit = int(device.get_attribute(attribute.MAX_SHARED_MEMORY_PER_BLOCK_OPTIN))
        self._shared = int(device.get_attribute(attribute.MAX_SHARED_MEMORY_PER_MULTIPROCESSOR))
        self._registers = int(device.get_attribute(attribute.MAX_REGISTERS_PER_MULTIPROCESSOR))
        self._lock = RLock()
        self._buffers: dict[str, Any] = {}
        self._functions: dict[str, Any] = {}
        self._context: Any = device.retain_primary_context()
        with self.current():
            self._modules = [driver.module_from_file(str(path)) for path in fatbins()]
            self._pool: Any = DeviceMemoryPool()
        atexit.register(self._close)

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the context current, for this thread alone; restores the previous one (such as torch's)."""
        with self._lock:
            self._context.push()
            try:
                yield
            finally:
                self._driver.Context.pop()

    def array(self, values: npt.NDArray[Any]) -> Any:
        """A copy on the device, freed by `free`; `int` gives its address."""
        values = np.ascontiguousarray(values)
        memory = self.empty(values.nbytes)
        if values.nbytes:
            self._driver.memcpy_htod(memory, values)
        return memory

    def empty(self, nbytes: int) -> Any:
        """Uninitialised memory on the device, freed by `free`; `int` gives its address.

        Raises `BackendError` if the device is out of memory.
        """
        return self._allocated(self._driver.mem_alloc, nbytes)

    def pooled(self, nbytes: int) -> Any:
        """Like `empty`, for short-lived memory, which is returned to a pool.

        Allocation and freeing take longer than a small kernel, and freeing waits for all kernels.
        """
        return self._allocated(self._pool.allocate, nbytes)

    def _allocated(self, allocate: Callable[[int], Any], nbytes: int) -> Any:
        try:
            try:
                return allocate(max(1, nbytes))
            except self._driver.MemoryError:
                self._pool.free_held()
                return allocate(max(1, nbytes))
        except self._driver.MemoryError as error:
            raise BackendError(
                f"{self.name} has no {max(1e-3, nbytes / 1e9):.3g} GB of memory left; "
                "NEURALSDF_BACKEND=native computes on the CPU"
            ) from error

    def free(self, memory: Any) -> None:
        """Free memory from the other methods; does nothing after the device was closed."""
        if self._context is not None:
            with self.current():
                memory.free()

    def buffer(self, name: str, nbytes: int) -> int:
        """Address of the persistent buffer called `name`, with at least `nbytes` bytes."""
        memory, size = self._buffers.get(name, (None, 0))
        if size < nbytes:
            if memory is not None:
                memory.free()
            size = max(nbytes, 1 << 16)
            memory = self.empty(size)
            self._buffers[name] = memory, size
        return int(memory)

    def upload(self, name: str, values: npt.NDArray[Any]) -> int:
        """Copy `values` to the buffer called `name`; returns its address."""
        address = self.buffer(name, values.nbytes)
        self.write(address, values)
        return address

    def write(self, address: int, values: npt.NDArray[Any]) -> None:
        """Copy `values` to the device."""
        if values.nbytes:
            self._driver.memcpy_htod(address, values)

    def clear(self, address: int, nbytes: int) -> None:
        """Fill memory on the device with zeros."""
        self._driver.memset_d8(address, 0, nbytes)

    def download(self, address: int, values: npt.NDArray[Any]) -> None:
        """Copy from the device to `values`, after all previous launches have finished."""
        if values.nbytes:
            self._driver.memcpy_dtoh(values, address)

    def launch(self, kernel: str, blocks: int, threads: int, shared: int, arguments: Any) -> None:
        """Start a kernel with one argument, a struct, and `shared` bytes per block; does not wait for it."""
        function = self._function(kernel)
        if shared > 48 << 10:  # more than the default limit must be requested
            function.set_attribute(self._driver.function_attribute.MAX_DYNAMIC_SHARED_SIZE_BYTES, shared)
        function(arguments, grid=(blocks, 1), block=(threads, 1, 1), shared=shared)

    def blocks_at_once(self, threads: int, shared: int) -> int:
        """Number of blocks that the device runs at once."""
        by_registers = self._registers // (_REGISTERS_A_THREAD * threads)
        by_shared = self._shared // (shared + _RESERVED_SHARED)
        return self.multiprocessors * max(1, min(by_registers, by_shared))

    def _function(self, kernel: str) -> Any:
        if kernel not in self._functions:
            self._functions[kernel] = self._find(kernel)
        return self._functions[kernel]

    def _find(self, kernel: str) -> Any:
        for module in self._modules:
            try:
                return module.get_function(kernel)
            except self._driver.Error:  # not in this module
                continue
        raise LookupError(f"no fatbin contains the kernel {kernel}")

    def _close(self) -> None:
        """Free everything while the context still exists."""
        with self.current():
            for memory, _ in self._buffers.values():
                memory.free()
            self._buffers.clear()
            self._pool.stop_holding()
            self._functions.clear()
            self._modules.clear()
        self._context = None


def blocks_of(count: int) -> list[slice]:
    """Slices of `count` points that are on the device at once."""
    return [slice(start, start + BLOCK) for start in range(0, count, BLOCK)]


def check_array(array: npt.NDArray[Any], name: str, dtype: type[np.generic], shape: tuple[int, ...]) -> None:
    """Raise `ValueError` for an array that a kernel cannot read."""
    if array.dtype != dtype or array.shape != shape or not array.flags.c_contiguous:
        raise ValueError(f"{name} must be a C-contiguous {np.dtype(dtype).name} array of the shape {shape}")

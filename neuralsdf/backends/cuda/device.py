"""
device.py
---------
The CUDA device, through pycuda: what is missing where there is none, the kernels' fatbins, buffers that stay,
launches. Everything runs in the device's primary context, which is torch's too, and only inside `current`.
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

#: Points on the device at once: some 100 MB a buffer, whatever is asked for.
BLOCK = 1 << 23

#: Ampere: the kernels use what it brought.
LEAST_CAPABILITY = (8, 0)

#: What bounds the blocks that a multiprocessor holds; the bytes are what CUDA itself takes of each block's.
_REGISTERS_A_THREAD, _RESERVED_SHARED = 128, 1024

_COMPUTE_CAPABILITY = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR


#: What builds the kernels and brings what launches them.
INSTALL = "NEURALSDF_CUDA=1 pip install '.[cuda]'"


def fatbins() -> list[Path]:
    """The compiled kernels, as setup.py leaves them where NEURALSDF_CUDA=1 asks for them."""
    return sorted((Path(kernels.__path__[0]) / "cuda").glob("*.fatbin"))


def missing() -> str | None:
    """What keeps this machine from running the CUDA kernels, with the way out; None if nothing does.

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
    if capability < LEAST_CAPABILITY:
        has = ".".join(map(str, capability))
        return f"{name} has compute capability {has}; the CUDA kernels need 8.0 (Ampere)"
    return None


def name() -> str:
    """The first CUDA device's name; "" where there is none."""
    found = _first_device()
    return "" if isinstance(found, str) else found[0]


def _first_device() -> tuple[str, tuple[int, int]] | str:
    """Name and compute capability of the first device, or why there is none; asks the driver itself."""
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
    """The first CUDA device (CUDA_VISIBLE_DEVICES chooses which that is).

    name: the card's. multiprocessors: how many. shared_limit: bytes of shared memory a block may have.
    One thread at a time computes; others wait in `current`.
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
        """The context, for this thread alone; what was current (torch's, say) comes back after it."""
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
        """Memory on the device that holds anything, freed by `free`; `int` gives its address.

        Raises `BackendError` where there is none left.
        """
        return self._allocated(self._driver.mem_alloc, nbytes)

    def pooled(self, nbytes: int) -> Any:
        """As `empty`, for what is soon freed again and then kept in a pool.

        To allocate and to free take longer than a small kernel, and freeing waits for all of them.
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
                "NEURALSDF_BACKEND=native computes on the processor"
            ) from error

    def free(self, memory: Any) -> None:
        """Frees what the other methods made; after the device was closed there is nothing to do."""
        if self._context is not None:
            with self.current():
                memory.free()

    def buffer(self, name: str, nbytes: int) -> int:
        """The address of the buffer called `name`, kept from call to call, at least `nbytes` long."""
        memory, size = self._buffers.get(name, (None, 0))
        if size < nbytes:
            if memory is not None:
                memory.free()
            size = max(nbytes, 1 << 16)
            memory = self.empty(size)
            self._buffers[name] = memory, size
        return int(memory)

    def upload(self, name: str, values: npt.NDArray[Any]) -> int:
        """The address of the buffer called `name`, holding `values`."""
        address = self.buffer(name, values.nbytes)
        self.write(address, values)
        return address

    def write(self, address: int, values: npt.NDArray[Any]) -> None:
        """Copies `values` to the device."""
        if values.nbytes:
            self._driver.memcpy_htod(address, values)

    def clear(self, address: int, nbytes: int) -> None:
        """Fills memory on the device with zeros."""
        self._driver.memset_d8(address, 0, nbytes)

    def download(self, address: int, values: npt.NDArray[Any]) -> None:
        """Fills `values` from the device, when all launched before has ended."""
        if values.nbytes:
            self._driver.memcpy_dtoh(values, address)

    def launch(self, kernel: str, blocks: int, threads: int, shared: int, arguments: Any) -> None:
        """Runs a kernel on its one argument, a struct; `shared` bytes a block. Returns before it ends."""
        function = self._function(kernel)
        if shared > 48 << 10:  # more than every block may have has to be asked for
            function.set_attribute(self._driver.function_attribute.MAX_DYNAMIC_SHARED_SIZE_BYTES, shared)
        function(arguments, grid=(blocks, 1), block=(threads, 1, 1), shared=shared)

    def blocks_at_once(self, threads: int, shared: int) -> int:
        """Blocks that the device holds at once."""
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
            except self._driver.Error:  # not in this file
                continue
        raise LookupError(f"no fatbin holds the kernel {kernel}")

    def _close(self) -> None:
        """Frees everything while there still is a context to free it in."""
        with self.current():
            for memory, _ in self._buffers.values():
                memory.free()
            self._buffers.clear()
            self._pool.stop_holding()
            self._functions.clear()
            self._modules.clear()
        self._context = None


def blocks_of(count: int) -> list[slice]:
    """The parts of so many points that are on the device at once."""
    return [slice(start, start + BLOCK) for start in range(0, count, BLOCK)]


def check_array(array: npt.NDArray[Any], name: str, dtype: type[np.generic], shape: tuple[int, ...]) -> None:
    """Raise `ValueError` for what a kernel cannot read."""
    if array.dtype != dtype or array.shape != shape or not array.flags.c_contiguous:
        raise ValueError(f"{name} must be a C-contiguous {np.dtype(dtype).name} array of the shape {shape}")

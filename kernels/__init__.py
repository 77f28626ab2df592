"""The native code: the C++ core for the CPU and the CUDA kernels."""

"""Native code: one C++ core for the CPU."""

"""Reference implementations in NumPy and torch, against which every kernel is tested."""

"""Reference implementations in numpy and torch, which every kernel is tested against."""

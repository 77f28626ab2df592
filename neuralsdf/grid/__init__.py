"""Sparse grids of values, and the search for the cells that a surface crosses."""

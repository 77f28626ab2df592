"""Whole operations, from file to file."""

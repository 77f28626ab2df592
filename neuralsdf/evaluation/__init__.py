"""Measures how well a field represents a mesh."""

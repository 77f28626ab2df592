"""Procedural families of shapes: training data of known classes, with exact part labels."""

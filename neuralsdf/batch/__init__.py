"""
batch
-----
A job for each of many meshes, such as their conversion: one loop (`run.py`) that survives meshes that fail or
crash their process, and continues after an interruption.
"""

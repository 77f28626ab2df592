"""
batch
-----
Many meshes become models: `batch_convert` is a loop over the path of `convert.py` that outlives what is
wrong with any of them, and crashes of its own.
"""

"""
batch
-----
Many meshes become models: `batch_convert` is a loop over `pipeline/convert.py` that survives
failing meshes, and its own crashes.
"""

"""
batch
-----
Runs a job, such as a conversion, on each mesh of a data set. The main loop (`run_batch.py`) continues if a
mesh fails or crashes its process, and a run that was interrupted can be continued.
"""

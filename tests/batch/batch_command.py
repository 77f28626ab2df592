"""The neuralsdf command with coarse metrics, and with meshes that misbehave by name; in workers too, which
import this file again."""

import os
import time

import numpy as np

import neuralsdf.batch.tasks
from neuralsdf.evaluation import metrics
from neuralsdf.pipeline.convert import fit_mesh

metrics.POINTS, metrics.FAR_POINTS, metrics.RESOLUTION = 1000, 200, 32


def misbehaving(mesh, **arguments):
    if "crash" in mesh:
        os.abort()
    if "hang" in mesh:
        time.sleep(3600)
    if "hog" in mesh:
        hoard = [np.ones(1 << 22) for _ in range(512)]
        time.sleep(len(hoard))
    return fit_mesh(mesh, **arguments)


neuralsdf.batch.tasks.convert = misbehaving

if __name__ == "__main__":
    from neuralsdf.cli.main import main

    main()

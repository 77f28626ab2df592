"""The neuralsdf command with quick metrics, and with meshes that crash or hang according to their names.

Workers import this file again, so it applies to them too.
"""

import os
import time
from pathlib import Path

import numpy as np

import neuralsdf.batch.convert_grouped
import neuralsdf.batch.convert_job
from neuralsdf.evaluation.metrics import Sizes, set_default_sizes
from neuralsdf.pipeline.convert import fit_mesh
from neuralsdf.pipeline.prepare_mesh import prepare

set_default_sizes(Sizes(points=2000, resolution=48))  # those of tests/helpers/quick_metrics.py


def misbehaving(mesh, **arguments):
    name = Path(mesh).name
    if "crash" in name:
        os.abort()
    if "hang" in name:
        time.sleep(3600)
    if "hog" in name:
        hoard = [np.ones(1 << 22) for _ in range(512)]
        time.sleep(len(hoard))
    return fit_mesh(mesh, **arguments)


def counted(mesh, *arguments):
    """Add a line for each preparation to the file in the environment variable PREPARATIONS."""
    if "PREPARATIONS" in os.environ:
        with open(os.environ["PREPARATIONS"], "a") as stream:
            stream.write(f"{mesh}\n")
    return prepare(mesh, *arguments)


neuralsdf.batch.convert_job.fit_mesh = misbehaving
neuralsdf.batch.convert_grouped.prepare = counted

if __name__ == "__main__":
    from neuralsdf.cli.main import main

    main()

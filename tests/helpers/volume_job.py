"""A batch job other than conversion: the volume and the box of each mesh, in a small file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from neuralsdf.batch.job import Job, Measure, Reported, Task
from neuralsdf.batch.manifest import Manifest
from neuralsdf.batch.output_folder import Folder, Place
from neuralsdf.batch.shape_record import Record
from neuralsdf.errors import MeshError
from neuralsdf.files.atomic_write import whole_file
from neuralsdf.mesh.load_mesh import load_mesh

VOLUME = Measure("volume", "volume", "Volume", 10.0, 1.0, 1)


@dataclass(frozen=True)
class VolumeJob(Job):
    """Volumes in cubes of `unit`."""

    unit: float = 1.0

    name: ClassVar[str] = "volume"
    place: ClassVar[Place] = Place("volumes", ".npz")
    reported: ClassVar[Reported] = Reported(
        columns=("faces", "volume"), listed=("faces",), stages=("read",), measures=(VOLUME,), rank=VOLUME
    )

    def options(self) -> dict[str, Any]:
        return {"unit": self.unit}

    def perform(self, task: Task) -> Record:
        mesh = load_mesh(task.record.source)
        self.check_unchanged(task.record, mesh.content)
        a, b, c = mesh.vertices[mesh.faces].transpose(1, 0, 2) / self.unit
        volume = float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)
        if not volume > 0:
            raise MeshError(task.record.source, "has no volume", "close it")
        with Path(task.draft).open("wb") as stream:
            np.savez(stream, volume=volume, box=np.ptp(mesh.vertices, axis=0))
        return task.record.done({"faces": len(mesh.faces), "volume": volume}, {"read": 0.5})

    @classmethod
    def finish(cls, manifest: Manifest, folder: Folder) -> tuple[Path, ...]:
        path = folder.path / "volumes.json"
        with whole_file(path, force=True) as temporary:
            volumes = {record.name: record.columns["volume"] for record in manifest.records("done")}
            temporary.write_text(json.dumps(volumes))
        return (path,)

    @classmethod
    def finished(cls, folder: Folder) -> list[Path]:
        return sorted(folder.path.glob("volumes.json"))

"""
doctor.py
---------
`neuralsdf doctor`: available backends and installed packages.
"""

from __future__ import annotations

import platform
from typing import Any

from ...errors import BackendError
from ...thread_count import available_cores, threads
from ...version import __version__
from ..shared import options, terminal

#: Names of required and optional packages, as in pyproject.toml.
REQUIRED = (
    "numpy",
    "scipy",
    "h5py",
    "libigl",
    "trimesh",
    "click",
    "tqdm",
    "pillow",
    "fast-simplification",
    "jinja2",
    "torch",
)
OPTIONAL = ("pycuda", "ray", "DracoPy", "manifold3d", "safetensors", "tensorboard", "imageio-ffmpeg")


@options.command(epilog=options.example("neuralsdf doctor"))
@options.as_json
def command(as_json: bool) -> None:
    """Show which backends run on this machine and why others do not, and the installed versions."""
    report = examine()
    if as_json:
        terminal.print_json(report)
        return
    backends = report["backends"]
    terminal.print_table(
        [[name, report[name]] for name in ("neuralsdf", "python", "machine", "cores", "threads")]
    )
    terminal.say()
    terminal.say("backends, fastest first")
    terminal.print_table([["  " + _mark(b), b["name"], b["detail"]] for b in backends])
    if report["problem"]:
        terminal.say(f"no backend: {report['problem']}")
    terminal.say()
    terminal.say("packages")
    terminal.print_table([["  " + name, found or "missing"] for name, found in report["packages"].items()])
    if report["missing"]:
        terminal.say()
        terminal.say(f"missing: pip install {' '.join(report['missing'])}")


def examine() -> dict[str, Any]:
    """What `doctor` prints, as plain values."""
    from ...backends import BACKENDS, backend_status, get_backend

    packages = {name: _installed(name) for name in REQUIRED + OPTIONAL}
    try:
        chosen, problem = get_backend().name, None
    except BackendError as error:  # NEURALSDF_BACKEND names an unavailable backend
        chosen, problem = None, str(error)
    return {
        "neuralsdf": __version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "cores": available_cores(),
        "threads": threads(),
        "backend": chosen,
        "problem": problem,
        "backends": [
            {"name": s.name, "available": s.available, "default": s.name == chosen, "detail": s.detail}
            for s in map(backend_status, BACKENDS)
        ],
        "packages": packages,
        "missing": [name for name in REQUIRED if packages[name] is None],
    }


def _mark(backend: dict[str, Any]) -> str:
    return "default" if backend["default"] else "runs" if backend["available"] else "does not run"


def _installed(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None

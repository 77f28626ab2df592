"""What import-linter cannot check: imports of other packages."""

from __future__ import annotations

import ast
from pathlib import Path

import neuralsdf

LIBRARY = Path(neuralsdf.__file__).parent

#: Packages that may import torch.
TORCH = {"backends/reference", "latent", "latent/models"}


def _imports(path: Path) -> set[str]:
    """The packages that a module imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add((node.module or "").partition(".")[0])
    return found


def test_only_the_reference_backend_and_trainings_import_torch() -> None:
    importing = {
        str(path.parent.relative_to(LIBRARY)) for path in LIBRARY.rglob("*.py") if "torch" in _imports(path)
    }
    assert importing == TORCH


def test_no_test_module_imports_another() -> None:
    found = [
        f"{path.name}: {node.module}"
        for path in Path(__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").rpartition(".")[2].startswith("test_")
    ]
    assert not found, "move what is shared to tests/helpers/ or to a conftest.py"

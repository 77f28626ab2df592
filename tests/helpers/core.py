"""The C++ core, for tests: the instruction sets that it runs with here."""

from __future__ import annotations

import pytest

try:
    from neuralsdf.kernels._core import supported_isas

    ISAS = supported_isas()
except ImportError:
    ISAS = []

needs_core = pytest.mark.skipif(not ISAS, reason="the C++ core was not built")

"""
start.py
--------
Where the `neuralsdf` command begins: signals are handled before anything heavy is imported, and no warning of
a library reaches the terminal.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import NoReturn

from . import signals


def main() -> NoReturn:
    """Run the command and exit with its code."""
    try:
        with signals.handled(last=True):
            import warnings

            # The library itself takes care of numbers that overflow; what is left is not for a user.
            if not sys.warnoptions:
                warnings.simplefilter("ignore")
            from .main import main as group

            group()
    except KeyboardInterrupt:  # before the group takes care of it
        with suppress(OSError):
            os.write(2, b"neuralsdf: interrupted\n")
    sys.exit(signals.INTERRUPTED)

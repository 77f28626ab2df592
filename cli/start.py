"""
start.py
--------
Where the `neuralsdf` command begins: signals are handled before anything heavy is imported, and no warning of
a library reaches the terminal.
"""

from __future__ import annotations

import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> NoReturn:
    """Run the command and exit with its code."""
    waiting = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, waiting)  # until something handles them
    import os
    import warnings
    from contextlib import suppress

    from .shared import signals

    try:
        with signals.handled(last=True):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, waiting)
            # The library itself takes care of numbers that overflow; what is left is not for a user.
            if not sys.warnoptions:
                warnings.simplefilter("ignore")
            from .main import main as group

            group()
    except KeyboardInterrupt:  # before the group takes care of it
        with suppress(OSError):
            os.write(2, b"neuralsdf: interrupted\n")
    sys.exit(signals.INTERRUPTED)

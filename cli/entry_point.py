"""
entry_point.py
--------------
Entry point of the `neuralsdf` command: installs signal handlers before heavy imports, and suppresses warnings
of libraries.
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
    signal.pthread_sigmask(signal.SIG_BLOCK, waiting)  # until handlers are installed
    import os
    import warnings
    from contextlib import suppress

    from .shared import signals

    try:
        with signals.handled(last=True):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, waiting)
            # The library handles overflow itself; remaining warnings are of no interest to users.
            if not sys.warnoptions:
                warnings.simplefilter("ignore")
            from .main import main as group

            group()
    except KeyboardInterrupt:  # before the group handles it
        with suppress(OSError):
            os.write(2, b"neuralsdf: interrupted\n")
    sys.exit(signals.INTERRUPTED)

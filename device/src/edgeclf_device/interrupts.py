"""Ctrl-C is never lost."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

AGAIN_S = 0.05


@contextmanager
def kept_interrupts() -> Iterator[None]:
    """Within it, SIGINT is sent again where Python threw its KeyboardInterrupt away.

    An exception can not leave a destructor, a callback of the garbage collector (JAX has one) or one that C code calls:
    Python hands it to :func:`sys.unraisablehook` and goes on, and a program asked to stop would not. The signal comes
    a moment later, when that callback has ended.
    """
    previous = sys.unraisablehook

    def again(unraisable: UnraisableHookArgs) -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            previous(unraisable)
            return
        timer = threading.Timer(AGAIN_S, os.kill, (os.getpid(), signal.SIGINT))
        timer.daemon = True
        timer.start()

    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = previous

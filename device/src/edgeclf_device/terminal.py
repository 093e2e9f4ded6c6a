"""A terminal without any package: progress as one line on stderr, rewritten in place; stdout when its reader left."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from time import monotonic

from edgeclf_device.progress import Item, Progress, no_progress

REDRAW_S = 0.1


def stderr_progress() -> Progress:
    """A progress line where stderr is a terminal, nothing elsewhere."""
    return _line if sys.stderr.isatty() else no_progress


def _line(items: Iterable[Item], description: str, total: int | None = None) -> Iterator[Item]:
    of, drawn, count = f" of {total}" if total is not None else "", 0.0, 0
    try:
        for count, item in enumerate(items, start=1):
            yield item
            if monotonic() - drawn >= REDRAW_S:
                drawn = monotonic()
                sys.stderr.write(f"\r\x1b[K{description}: {count}{of}")
                sys.stderr.flush()
    finally:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()


def discard_stdout() -> None:
    """Send what is left in stdout nowhere: Python flushes it at exit, and would complain a second time."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

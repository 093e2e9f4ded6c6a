"""Progress bars on stderr for whatever the library calls long."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Item = TypeVar("Item")


class Bars:
    """A ``Progress`` of the library shown with rich: one bar for each piece of work under way.

    Each piece of work leaves one line when it is done, also where stderr is no terminal.
    """

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._display = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )

    def __enter__(self) -> Bars:
        self._display.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._display.stop()

    def __call__(self, items: Iterable[Item], description: str, total: int | None = None) -> Iterator[Item]:
        """Yield ``items`` while a bar named ``description`` counts them out of ``total``."""
        task = self._display.add_task(description, total=total)
        begin = time.monotonic()
        try:
            for item in items:
                yield item
                self._display.advance(task)
            # What is done scrolls up as a line: bars kept for ever would push the running one off the screen.
            self._console.print(
                f"{description}: done in {time.monotonic() - begin:.1f} s", highlight=False, markup=False
            )
        finally:
            self._display.remove_task(task)

"""Progress bars on stderr for whatever the library calls long."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Item = TypeVar("Item")


class Bars:
    """A ``Progress`` of the library shown with rich: one bar for each piece of work, nested work below it.

    Where stderr is no terminal, one line is printed for each piece of work that is done.
    """

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._display = Progress(
            TextColumn("{task.description}"),
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
        yield from self._display.track(items, total=total, description=description)
        if not self._console.is_terminal:
            self._console.print(f"{description}: done", highlight=False)

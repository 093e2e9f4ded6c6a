"""How library code reports progress without knowing who shows it: the caller passes what wraps an iterable."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

Item = TypeVar("Item")


class Progress(Protocol):
    """Wraps ``items`` and yields them unchanged while showing ``description`` and the count out of ``total``."""

    def __call__(self, items: Iterable[Item], description: str, total: int | None = None) -> Iterator[Item]:
        """Yield ``items``."""


def no_progress(items: Iterable[Item], description: str, total: int | None = None) -> Iterator[Item]:
    """Yield ``items`` and show nothing: the default everywhere."""
    del description, total
    yield from items

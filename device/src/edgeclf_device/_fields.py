"""Fields of JSON that came from a file: there and of their type, or a ModelError that says which is not."""

from __future__ import annotations

from typing import Any

from edgeclf_device.errors import ModelError


def get(value: Any, key: str, kind: Any) -> Any:
    """The field ``key`` of the manifest's object ``value``, of the type or types ``kind``; a bool is no integer."""
    if not isinstance(value, dict) or key not in value:
        raise ModelError(f"The manifest lacks the field {key!r}; export the model again.")
    item = value[key]
    if not isinstance(item, kind) or (isinstance(item, bool) and kind is not bool):
        raise ModelError(f"The manifest's field {key!r} has the wrong type ({type(item).__name__}); export again.")
    return item


def number(value: Any, key: str) -> float:
    """A field that must fit a float."""
    try:
        return float(get(value, key, (int, float)))
    except OverflowError as error:
        raise ModelError(f"The manifest's field {key!r} must fit a float; export the model again.") from error


def integers(items: list[Any], key: str) -> list[int]:
    """``items`` of the field ``key``, which must be integers."""
    if not all(isinstance(item, int) and not isinstance(item, bool) for item in items):
        raise ModelError(f"The manifest's field {key!r} must hold integers, but it is {items!r}.")
    return items

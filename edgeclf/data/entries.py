"""What a folder or a listing says of an image, before its file is opened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "val", "test"]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One image; see ``edgeclf.data.dataset.Item``, which it becomes."""

    path: str
    label: str
    split: str | None = None
    stratum: str | None = None
    group: str | None = None
    weight: float = 1.0

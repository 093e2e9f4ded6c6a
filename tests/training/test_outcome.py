from __future__ import annotations

from pathlib import Path

from edgeclf.data.dataset import Dataset, Item
from edgeclf.training.outcome import data_digest


def test_another_weight_of_an_image_is_other_data():
    def digest(weight: float) -> str:
        items = (Item(path="a.png", label=0, digest="0", weight=weight), Item(path="b.png", label=1, digest="1"))
        return data_digest(Dataset(root=Path("/data"), labels=("a", "b"), items=items), ("train", "val"))

    assert len({digest(1.0), digest(0.5), digest(0.0)}) == 3

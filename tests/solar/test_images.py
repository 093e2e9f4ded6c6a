"""The quickstart's images as they come from their package."""

from __future__ import annotations

import csv
from collections import Counter

import pytest

from edgeclf.data.dataset import scan
from edgeclf.data.splits import split
from edgeclf.solar.images import LICENCE, cells, write_images
from edgeclf.solar.quickstart import CONFIG

pytest.importorskip("elpv_dataset")


@pytest.fixture(scope="module")
def listing(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("solar") / "data")


def test_every_cell_is_listed_with_its_class_and_type():
    counts = Counter((cell.label, cell.kind) for cell in cells())
    assert sum(counts.values()) == 2624
    assert counts["defective", "mono"] + counts["defective", "poly"] == 821


def test_the_folder_is_one_class_a_subfolder_with_a_listing_and_the_licence(listing):
    with listing.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2624
    assert all((listing.parent / row["path"]).is_file() for row in rows)
    assert all(row["path"].split("/")[1] == row["label"] for row in rows)
    assert LICENCE in (listing.parent / "LICENCE.txt").read_text()


def test_a_quarter_is_set_aside_for_the_test_evenly_over_class_and_type(listing):
    dataset = scan(listing)
    parts = split(dataset, seed=0, fractions=CONFIG.split.fractions)
    assert parts == split(dataset, seed=0, fractions=CONFIG.split.fractions)
    assert parts != split(dataset, seed=1, fractions=CONFIG.split.fractions)
    strata = Counter((item.label, item.stratum) for item in dataset.items)
    tested = Counter(
        (item.label, item.stratum) for item, part in zip(dataset.items, parts, strict=True) if part == "test"
    )
    for stratum, count in strata.items():
        assert tested[stratum] / count == pytest.approx(0.25, abs=0.01), stratum

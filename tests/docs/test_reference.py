"""The reference says what the code does: defaults, the files of a run, and links that lead somewhere."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomllib

pytest.importorskip("edgeclf")

from edgeclf.data.report import DataReport
from edgeclf.data.splits import SplitRow
from edgeclf.models import registry
from edgeclf.report.pictures import PICTURES
from edgeclf.training.config import TrainConfig, to_toml
from edgeclf.training.journal import EVENTS, EpochRecord
from edgeclf.training.run import FILES, Predictions

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

_EMPTY = ("", "empty", "the data's folder")
"""How the table says that a text is empty by default."""


def _rows(page: str) -> Iterator[list[str]]:
    """The cells of every line of every table."""
    for line in (REFERENCE / page).read_text(encoding="utf-8").splitlines():
        if line.startswith("|"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def _documented(page: str) -> Iterator[tuple[str, Any]]:
    """Keys of the configuration with the default that stands beside them; several may share a line."""
    for keys, default, *_ in _rows(page):
        names = re.findall(r"`([a-z_.]+)`", keys)
        if not names:
            continue
        values = [default] if len(names) == 1 else default.split(", ")
        assert len(names) == len(values), keys
        yield from zip(names, map(_value, values), strict=True)


def _value(cell: str) -> Any:
    if cell in _EMPTY:
        return ""
    return cell.strip("`") if cell.startswith("`") else json.loads(cell)


def _flat(table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _typed(pairs: dict[str, Any]) -> dict[str, Any]:
    """With the type beside each value: 1 and 1.0 and true are not the same default."""
    return {key: (type(value).__name__, value) for key, value in pairs.items()}


def test_every_key_of_the_configuration_is_documented_with_its_default():
    pairs = [*_documented("configuration.md"), *_documented("augmentation.md")]
    found = dict(pairs)
    assert all(found[key] == value for key, value in pairs), "two tables give one key different defaults"
    assert _typed(found) == _typed(dict(_flat(tomllib.loads(to_toml(TrainConfig())))))


def test_the_defaults_of_every_backbone_are_documented():
    page = (REFERENCE / "backbones.md").read_text(encoding="utf-8")
    table = page.partition("\n## Defaults\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([\w:]+)` \| (.*) \|$", table, flags=re.MULTILINE)
    found = {name: re.findall(r"`(.+?)`", cell) for name, cell in rows}
    names = [*registry.BACKBONES, "module:function"]
    assert len(rows) == len(names)
    assert found == {name: list(registry.backbone(name).defaults) for name in names}


def test_every_backbone_has_the_image_size_and_the_block_that_the_first_table_gives_it():
    rows = {cells[0].strip("`"): cells for cells in _rows("backbones.md") if len(cells) == 8}
    for name, backbone in registry.BACKBONES.items():
        own = dict(default.split("=") for default in backbone.defaults)
        assert rows[name][1] == own.get("image_size", str(TrainConfig().image_size)), name
        lowest = own.get("train.fine_tune_from", TrainConfig().train.fine_tune_from)
        assert rows[name][4].strip("`") == lowest, name


def test_every_file_of_a_run_and_what_is_in_it_is_documented():
    page = (REFERENCE / "run.md").read_text(encoding="utf-8")
    types = (SplitRow, EpochRecord, Predictions, DataReport)
    fields = [field.name for one in types for field in dataclasses.fields(one)]
    for name in (*FILES, PICTURES, f"{EVENTS}/", *fields):
        assert f"`{name}`" in page, name


def _without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def _anchors(page: Path) -> set[str]:
    """What GitHub calls the headings of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page):
    text = _without_code(page.read_text(encoding="utf-8"))
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"^\[[^\]]+\]: (\S+)", text, flags=re.MULTILINE)
    broken = []
    for target in targets:
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or (anchor and anchor not in _anchors(there)):
            broken.append(target)
    assert not broken

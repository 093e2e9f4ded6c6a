"""A CSV or Parquet listing becomes entries."""

from __future__ import annotations

import csv
import math
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import get_args

from edgeclf.data.entries import Entry, Split
from edgeclf_device.errors import DataError, DependencyError

REQUIRED = ("path", "label")
OPTIONAL = ("split", "stratum", "group", "weight")

_Row = tuple[str, Mapping[str, str | None]]
"""Where it is, for messages, and its columns."""


def read_listing(listing: Path) -> list[Entry]:
    """Read the rows of a listing: a ``.parquet`` file, or CSV in UTF-8 with the columns' names in its first line.

    Columns ``path`` and ``label`` and, optionally, ``split``, ``stratum``, ``group`` and ``weight``; others are passed
    over. A relative path is relative to the listing's folder.

    Raises:
        DataError: it can't be read as such, or a row breaks a rule; the row is named.
        DependencyError: it is Parquet and pyarrow is not installed.
        OSError: it can't be opened.
    """
    rows = _parquet_rows(listing) if listing.suffix.lower() == ".parquet" else _csv_rows(listing)
    return [_entry(listing, where, row) for where, row in rows]


def _csv_rows(listing: Path) -> Iterator[_Row]:
    try:
        with listing.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            _require_columns(listing, list(reader.fieldnames or ()))
            for row in reader:
                yield f"{listing}, line {reader.line_num}", row
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"A listing must be CSV in UTF-8, but {listing} can't be read as such ({error}).") from error


def _parquet_rows(listing: Path) -> Iterator[_Row]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise DependencyError(
            f"Reading {listing.name} needs pyarrow ({error}): pip install pyarrow, or save it as CSV."
        ) from error
    try:
        with parquet.ParquetFile(listing) as file:
            present = [name for name in (*REQUIRED, *OPTIONAL) if name in file.schema_arrow.names]
            _require_columns(listing, file.schema_arrow.names)
            rows = file.read(columns=present).to_pylist()
    except pa.ArrowException as error:
        raise DataError(f"A .parquet listing must be a Parquet file, but {listing} is not ({error}).") from error
    for number, row in enumerate(rows, 1):
        yield f"{listing}, row {number}", {name: None if value is None else str(value) for name, value in row.items()}


def _require_columns(listing: Path, names: list[str]) -> None:
    missing = [name for name in REQUIRED if name not in names]
    if missing:
        raise DataError(
            f"A listing must have the columns path and label, but {listing} lacks {' and '.join(missing)}; "
            f"its columns are {','.join(names)!r}."
        )


def _entry(listing: Path, where: str, row: Mapping[str, str | None]) -> Entry:
    def cell(name: str) -> str:
        return (row.get(name) or "").strip()

    path, label, split = cell("path"), unicodedata.normalize("NFC", cell("label")), cell("split") or None
    if not path or not label:
        raise DataError(f"{where}: path and label must not be empty.")
    if split is not None and split not in get_args(Split):
        raise DataError(f"{where}: split must be {', '.join(get_args(Split))} or empty, but it is {split!r}.")
    if ".." in Path(path).parts and not Path(path).is_absolute():
        raise DataError(f"{where}: a relative path must stay below the listing's folder, but it is {path!r}.")
    if not (listing.parent / path).is_file():
        raise DataError(f"{where}: there is no file {listing.parent / path}.")
    return Entry(
        path=path,
        label=label,
        split=split,
        stratum=cell("stratum") or None,
        group=cell("group") or None,
        weight=_weight(where, cell("weight") or "1"),
    )


def _weight(where: str, text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not 0 <= weight < math.inf:
        raise DataError(f"{where}: weight must be a number of at least 0 or empty, but it is {text!r}.")
    return weight

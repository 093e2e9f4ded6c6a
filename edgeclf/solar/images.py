"""The quickstart's images: 2,624 electroluminescence pictures of solar cells, from the PyPI package elpv-dataset.

Source: Buerhop-Lutz et al., "A benchmark for visual identification of defective solar cells in electroluminescence
imagery" (2018); Deitsch et al., "Automatic classification of defective photovoltaic module cells in
electroluminescence images" (2019).
"""

from __future__ import annotations

import csv
import importlib.util
import io
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeclf_device.atomic import os_errors_explained, write_text
from edgeclf_device.errors import DataError, DependencyError
from edgeclf_device.progress import Progress, no_progress

LICENCE = "CC BY-NC-SA 4.0"
NOTICE = (
    "The solar-cell images are the ELPV dataset (Buerhop-Lutz et al. 2018, Deitsch et al. 2019), "
    f"licensed {LICENCE}: give credit, share alike, and no commercial use. "
    "Models trained on them are for trying edgeclf out, not for products."
)
THRESHOLD = 0.5
LISTING = "listing.csv"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One picture: its file, the probability (0 to 1) that the cell is defective, and its type (mono, poly)."""

    file: Path
    probability: float
    kind: str

    @property
    def label(self) -> str:
        """``defective`` from a probability of one half, else ``functional``."""
        return "defective" if self.probability >= THRESHOLD else "functional"


def cells() -> list[Cell]:
    """All cells of the installed package, in its order.

    Raises:
        DependencyError: the package is not installed.
        DataError: its list can't be read.
    """
    found = importlib.util.find_spec("elpv_dataset")
    if found is None or found.origin is None:
        raise DependencyError('The quickstart needs the elpv-dataset package: pip install "edgeclf[quickstart]".')
    folder = Path(found.origin).parent / "data"
    return list(_read_list(folder))


def _read_list(folder: Path) -> Iterator[Cell]:
    for line in (folder / "labels.csv").read_text(encoding="ascii").splitlines():
        fields = line.split()
        if len(fields) != 3:
            raise DataError(f"{folder / 'labels.csv'} must hold three fields a line, but has {line!r}; reinstall it.")
        yield Cell(file=folder / fields[0], probability=float(fields[1]), kind=fields[2])


def write_images(folder: Path, *, progress: Progress = no_progress) -> Path:
    """Copy the images into ``folder``/images/CLASS and write ``folder``/listing.csv; gives the listing's path.

    The listing's ``stratum`` is the cell type, so that a split is stratified by class and type.

    Raises:
        DependencyError: the package is not installed.
        SystemStateError: the system refused (disk full, permission).
    """
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["path", "label", "stratum"])
    with os_errors_explained(folder):
        for label in ("defective", "functional"):
            (folder / "images" / label).mkdir(parents=True)
        for cell in progress(cells(), "Copying the solar-cell images"):
            path = Path("images", cell.label, f"{cell.kind}-{cell.file.name}")
            shutil.copyfile(cell.file, folder / path)
            rows.writerow([path.as_posix(), cell.label, cell.kind])
    write_text(folder / "LICENCE.txt", NOTICE + "\n")
    listing = folder / LISTING
    write_text(listing, text.getvalue())
    return listing

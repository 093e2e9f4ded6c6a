"""Natural photographs out of Debian's packages, for judging what quantization does to classifiers of photographs.

Two groups of images, from different packages: 200 to calibrate with (desktop backgrounds, OpenCV's samples) and 1,065
to judge by (GCompris: animals, buildings, tools, household things, musicians; Endless Sky: landscapes, cities,
interiors). Drawings, paintings, screenshots and renderings in these packages are left out by naming the photos that are
taken. Packages are fetched with apt, checked against their SHA-256 and unpacked without being installed; each photo is
cut into a fixed grid of squares of 256 × 256 pixels, written once as PNG files. The photos keep their own licences
(``licence`` of each source; the package's debian/copyright names the photographers): use them to measure, and look
there before you pass them on.
Run: ``.venv/bin/python benchmarks/photos.py [--sheet F.png]``.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import struct
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from datasets import debian_package
from numpy.typing import NDArray

from edgeclf.data.cache import default_folder
from edgeclf_device.atomic import atomic_folder
from edgeclf_device.images import decode
from edgeclf_device.preprocess import PrepareSpec, prepare

SPEC = PrepareSpec(height=256, width=256)
CROPS = ((1.0, 0.5, 0.5), (0.75, 0.25, 0.25), (0.75, 0.75, 0.75))
"""Squares to cut: side as a share of the photo's shorter side, then where in the room that leaves, across and down."""
TILE = 64
TILES_ACROSS = 30


@dataclass(frozen=True, kw_only=True)
class Source:
    """One Debian package and the photos in it that are taken.

    Attributes:
        sha256: of the .deb file.
        licence: of the photos taken.
        folder: where they lie in the package.
        photos: names below ``folder``, ``*`` for any characters; inside a Qt resource file, below that file's name.
        left_out: those of them that are no photographs, or that another has too.
        crops: how many of ``CROPS`` are cut from each.
    """

    package: str
    version: str
    sha256: str
    licence: str = field(repr=False)
    folder: str
    photos: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    crops: int


CALIBRATION = (
    Source(
        package="mate-backgrounds",
        version="1.26.0-1",
        sha256="7bf4c2209f34b4f61ba6d24c8b58c28b361e82e4b943aae6d42c030169af9e04",
        licence="GPL-2+",
        folder="usr/share/backgrounds/mate/nature",
        photos=("*.jpg",),
        crops=3,
    ),
    Source(
        package="lomiri-wallpapers-16.04",
        version="20.04.0-2",
        sha256="a99ff6a3bfe451e4cc0682ecb3cc82e71740626d59e4845ae34a0a0e45421eab",
        licence="CC-BY-4.0, CC-BY-SA-4.0, CC0-1.0",
        folder="usr/share/backgrounds",
        photos=("*.jpg",),
        left_out=("analogpattern_by_Peter_Nerlich.jpg", "umang_by_Abhishek_Mudgal.jpg"),
        crops=3,
    ),
    Source(
        package="lxqt-themes",
        version="1.2.0-1",
        sha256="d518df36b515b09d36cb00b12645dd8ce170bb82bb0966297741905ce3edc8e1",
        licence="LGPL-2.1+",
        folder="usr/share/lxqt/wallpapers",
        photos=(
            "Butterfly-Kenneth-Wimer.jpg", "Valendas.png", "after-the-rain.jpg", "appleflower.png", "beam.png",
            "butterfly.png", "cloud.png", "drop.png", "flowers.png", "fog.jpg",
        ),
        crops=3,
    ),
    Source(
        package="palapeli-data",
        version="4:22.12.3-1",
        sha256="69a15dce2ac25ed8708ac518cd0cee5f4eb0c70ed15da2fdb8899a19ac0ee058",
        licence="GFDL, public domain",
        folder="usr/share/palapeli/collection",
        photos=("*.jpg",),
        crops=3,
    ),
    Source(
        package="opencv-doc",
        version="4.6.0+dfsg-12",
        sha256="4b12681df35878207ac7097dc66184b2ae552e4bf4ddd2af04a0f03ed0b8682a",
        licence="Apache-2.0",
        folder="usr/share/doc/opencv-doc",
        photos=(
            "examples/alphamat/input_images/plant.jpg", "examples/data/aloeL.jpg", "examples/data/apple.jpg",
            "examples/data/baboon.jpg", "examples/data/board.jpg", "examples/data/building.jpg",
            "examples/data/butterfly.jpg", "examples/data/chicky_512.png", "examples/data/fruits.jpg",
            "examples/data/home.jpg", "examples/data/leuvenA.jpg", "examples/data/licenseplate_motion.jpg",
            "examples/data/messi5.jpg", "examples/data/rubberwhale1.png", "examples/data/squirrel_cls.jpg",
            "examples/hfs/data/00[012].jpg", "examples/reg/home.png", "examples/text/scenetext0[1-6].jpg",
            "opencv4/html/227943776_1.jpg", "opencv4/html/230501201_1.jpg",
            "opencv4/html/Background_Subtraction_Tutorial_frame.jpg",
            "opencv4/html/Histogram_Calculation_Original_Image.jpg",
            "opencv4/html/Hough_Lines_Tutorial_Original_Image.jpg",
            "opencv4/html/Laplace_Operator_Tutorial_Original_Image.jpg",
            "opencv4/html/Morphology_1_Tutorial_Original_Image.jpg", "opencv4/html/Remap_Tutorial_Original_Image.jpg",
            "opencv4/html/astra_color.jpg", "opencv4/html/bicubicOutput.jpg", "opencv4/html/fusion_mertens.jpg",
            "opencv4/html/pexels_double_decker_bus.jpg", "opencv4/html/retina_TreeHdr_small.jpg",
            "opencv4/html/space_shuttle.jpg", "opencv4/html/studentsSample_input.jpg",
        ),
        crops=2,
    ),
)  # fmt: skip
JUDGING = (
    Source(
        package="gcompris-qt-data",
        version="3.1-2",
        sha256="e9cf06ab2105529068df73085784e835d2ff03f870d2a8091f09125d40abac9f",
        licence="CC-BY, CC-BY-SA, CC0-1.0, GFDL-NIV-1.2+, GPL-2+, GPL-3+, public domain",
        folder="usr/share/gcompris-qt/rcc",
        photos=(
            "categorization.rcc/*/fishes/*.webp", "categorization.rcc/*/monuments/*.webp",
            "categorization.rcc/*/others/*.webp", "categorization.rcc/*/renewable/*.webp",
            "categorization.rcc/*/tools/*.webp", "details.rcc/*/Chenonceau_background.webp",
            "details.rcc/*/EgeskovSlotSpejling_background.webp", "details.rcc/*/EilanDonanCastle_background.webp",
            "details.rcc/*/FanoeWindmill_background.webp", "details.rcc/*/GizahPyramids_background.webp",
            "details.rcc/*/Louvre_2007_02_24_c_background.webp", "details.rcc/*/NDP_background.webp",
            "details.rcc/*/Nagoya_background.webp", "details.rcc/*/Neuschwanstein_background.webp",
            "details.rcc/*/OperaSidney_background.webp", "details.rcc/*/TajMahal_background.webp",
            "details.rcc/*/TourEiffel_background.webp", "details.rcc/*/TowerBridgeLondon_background.webp",
            "erase.rcc/*.webp", "explore_farm_animals.rcc/*/animals/*.webp", "explore_monuments.rcc/*/*.webp",
            "explore_world_animals.rcc/*/animals/*.webp", "explore_world_music.rcc/*/music/*.webp",
        ),
        left_out=(  # the same photos as in categorization.rcc
            "*/egypt/greatPyramidOfGiza.webp", "*/germany/brandenburgGate.webp", "*/wonders/colosseum.webp",
        ),
        crops=3,
    ),
    Source(
        package="endless-sky-data",
        version="0.9.8-1.2",
        sha256="e45835e05a11e84bb1a890a0ded390246a53b8318f21a25925aa70fa54f80c13",
        licence="CC-BY-SA-3.0, CC-BY-SA-4.0, public domain",
        folder="usr/share/games/endless-sky/images/land",
        photos=("*.jpg",),
        left_out=("earthrise.jpg", "nasa8.jpg", "nasa9.jpg"),
        crops=1,
    ),
)  # fmt: skip


def calibration_photos() -> Path:
    """A folder of 200 PNG files to calibrate with: RGB, 256 × 256; about 190 MB are fetched for it once."""
    return _folder("calibration", CALIBRATION)


def judging_photos() -> Path:
    """A folder of 1,065 PNG files to judge by, from other packages: RGB, 256 × 256; 114 MB are fetched once."""
    return _folder("judging", JUDGING)


def _folder(name: str, sources: Sequence[Source]) -> Path:
    """The images of ``sources``, from the cache; the folder's name changes with what would be in it."""
    meaning = hashlib.sha256(repr((sources, CROPS, SPEC)).encode()).hexdigest()[:12]
    folder = default_folder().with_name("edgeclf-datasets") / f"photos-{name}-{meaning}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with atomic_folder(folder) as images:
            for source in sources:
                _write_images(source, images)
    return folder


def _write_images(source: Source, folder: Path) -> None:
    with tempfile.TemporaryDirectory() as work:
        unpacked = debian_package(source.package, source.version, source.sha256, Path(work))
        for name, data in _photos(source, unpacked / source.folder):
            photo = decode(data, Path(name))
            for number, square in enumerate(_squares(photo, source.crops)):
                image = prepare(square, SPEC, color="bgr")
                path = folder / f"{source.package}-{PurePosixPath(name).with_suffix('')}-{number}.png".replace("/", "-")
                path.write_bytes(cv2.imencode(".png", image[..., ::-1])[1].tobytes())


def _photos(source: Source, folder: Path) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of every photo that is taken, in order of the names; every pattern must find one."""
    unused = {*source.photos, *source.left_out}
    for name, data in sorted(_files(folder)):
        taken = {pattern for pattern in source.photos if fnmatchcase(name, pattern)}
        left_out = {pattern for pattern in source.left_out if fnmatchcase(name, pattern)}
        unused -= taken | left_out
        if taken and not left_out:
            yield name, data
    assert not unused, f"{source.package} has no file {sorted(unused)}"


def _files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            name, data = path.relative_to(folder).as_posix(), path.read_bytes()
            if path.suffix == ".rcc":
                yield from ((f"{name}/{inner}", content) for inner, content in _resources(data))
            else:
                yield name, data


def _resources(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the files in a Qt resource file of version 2 or 3 that are stored as they are.

    Its tree has 22 bytes a node: the name's offset and flags (1 zlib, 2 folder, 4 zstd), then for a folder the number
    of children and the first child's index, for a file two numbers of 16 bits and the content's offset
    (qtbase/src/corelib/io/qresource.cpp).
    """
    magic, version, tree, contents, names = struct.unpack_from(">4s4I", data)
    assert magic == b"qres", "not a Qt resource file"
    assert version in {2, 3}, f"a Qt resource file of version {version}"
    waiting = [(0, "")]
    while waiting:
        index, path = waiting.pop()
        name, flags, first, second = struct.unpack_from(">IHII", data, tree + 22 * index)
        if index:
            (length,) = struct.unpack_from(">H", data, names + name)
            path = f"{path}/{data[names + name + 6 :][: 2 * length].decode('utf-16-be')}"
        if flags & 2:
            waiting.extend((child, path) for child in range(second, second + first))
        elif not flags & 5:
            (length,) = struct.unpack_from(">I", data, contents + second)
            yield path.removeprefix("/"), data[contents + second + 4 :][:length]


def _squares(photo: NDArray[np.uint8], count: int) -> Iterator[NDArray[np.uint8]]:
    height, width = photo.shape[:2]
    for share, across, down in CROPS[:count]:
        side = round(share * min(height, width))
        top, left = round(down * (height - side)), round(across * (width - side))
        yield np.ascontiguousarray(photo[top : top + side, left : left + side])


def sheet(folders: Sequence[Path]) -> NDArray[np.uint8]:
    """A contact sheet of all images, uint8 (H, W, 3) BGR, with a black row between the folders."""
    rows: list[NDArray[np.uint8]] = []
    for folder in folders:
        tiles = [cv2.resize(decode(path.read_bytes(), path), (TILE, TILE)) for path in sorted(folder.glob("*.png"))]
        blank = np.zeros((TILE, TILE, 3), np.uint8)
        tiles += [blank] * (-len(tiles) % TILES_ACROSS + TILES_ACROSS)
        rows += [np.hstack(tiles[at : at + TILES_ACROSS]) for at in range(0, len(tiles), TILES_ACROSS)]
    return np.vstack(rows)


def main() -> None:
    """Make both folders, print what is in them, and write the sheet if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sheet", type=Path, help="write a PNG file of all images here")
    asked = parser.parse_args()
    groups = ((calibration_photos(), CALIBRATION), (judging_photos(), JUDGING))
    for folder, sources in groups:
        print(folder)
        found = Counter(
            next(source.package for source in sources if path.name.startswith(source.package))
            for path in folder.glob("*.png")
        )
        for source in sources:
            images = found[source.package]
            print(f"  {images:5} images of {images // source.crops:4} photos, {source.package} ({source.licence})")
        print(f"  {found.total():5} images")
    if asked.sheet:
        cv2.imwrite(os.fspath(asked.sheet), sheet([folder for folder, _ in groups]))


if __name__ == "__main__":
    main()

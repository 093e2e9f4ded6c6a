"""The data of the recipes, written as folders of image files, as a user would have them."""

from __future__ import annotations

import csv
import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

from edgeclf.data.cache import default_folder
from edgeclf.solar.images import write_images

FASHION_CLASSES = (
    "T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
FASHION_PACKAGE = "dataset-fashion-mnist"
FASHION_VERSION = "0.0~git20200523.55506a9-1"
FASHION_SHA256 = "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0"
FASHION_FOLDER = Path("usr/share/datasets/fashion-mnist")


def solar() -> Path:
    """The quickstart's solar cells as a listing with the strata mono and poly."""
    folder = default_folder().with_name("edgeclf-datasets") / "solar"
    if not (folder / "listing.csv").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_images(folder)
    return folder / "listing.csv"


def fashion_mnist() -> Path:
    """Fashion-MNIST (1708.07747, MIT) as PNG files in train/CLASS and test/CLASS; 70,000 files are written once."""
    folder = default_folder().with_name("edgeclf-datasets") / "fashion-mnist"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as work:
            source = debian_package(FASHION_PACKAGE, FASHION_VERSION, FASHION_SHA256, Path(work)) / FASHION_FOLDER
            for part, prefix in (("train", "train"), ("test", "t10k")):
                _write_images(source, prefix, Path(work) / "images" / part)
            (Path(work) / "images").rename(folder)
    return folder


def fashion_listing(folder: Path, per_class: int, *, val_per_class: int = 100) -> Path:
    """The first images of each class to train with, the next to validate, and all 10,000 test images."""
    path = folder / f"fashion-{per_class}.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "split"])
        for label in FASHION_CLASSES:
            images = sorted((fashion_mnist() / "train" / label).iterdir())
            parts = {"train": images[:per_class], "val": images[per_class : per_class + val_per_class]}
            parts["test"] = sorted((fashion_mnist() / "test" / label).iterdir())
            rows.writerows([str(image), label, part] for part, chosen in parts.items() for image in chosen)
    return path


def debian_package(package: str, version: str, sha256: str, work: Path) -> Path:
    """Where a Debian package's files lie: fetched with apt, checked, and unpacked below ``work``, not installed.

    Args:
        package, version: as apt names them.
        sha256: of the .deb file.
        work: an empty folder.
    """
    wanted = f"{package}={version}"
    print(f"fetching {wanted} with apt-get download", file=sys.stderr)
    try:
        # As root, apt would warn that its own user can't write here.
        fetch = ["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", wanted]
        subprocess.run(fetch, cwd=work, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(
            f"The images come from Debian 12's package {wanted}, which could not be fetched ({error}); "
            "run apt-get update first, on Debian 12."
        )
    (file,) = work.glob("*.deb")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if digest != sha256:
        sys.exit(f"{wanted} must have the SHA-256 {sha256}, but what was fetched has {digest}.")
    subprocess.run(["dpkg-deb", "-x", file, work / "unpacked"], check=True)  # noqa: S607
    return work / "unpacked"


def _write_images(source: Path, prefix: str, folder: Path) -> None:
    images = _read_idx(source / f"{prefix}-images-idx3-ubyte.gz")
    labels = _read_idx(source / f"{prefix}-labels-idx1-ubyte.gz")
    for name in FASHION_CLASSES:
        (folder / name).mkdir(parents=True)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        cv2.imwrite(os.fspath(folder / FASHION_CLASSES[label] / f"{number:05}.png"), image)


def _read_idx(path: Path) -> np.ndarray:
    """Read an IDX file (http://yann.lecun.com/exdb/mnist): two zero bytes, type 8, dimensions, sizes, bytes."""
    data = gzip.decompress(path.read_bytes())
    assert data[:3] == b"\x00\x00\x08", f"{path} is no IDX file of bytes"
    shape = np.frombuffer(data, ">u4", count=data[3], offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)


def photos(count: int = 24) -> Path:
    """12-megapixel JPEG files in two classes: scikit-learn's photos enlarged, turned and given a sensor's noise."""
    from sklearn.datasets import load_sample_image

    folder = default_folder().with_name("edgeclf-datasets") / f"photos-{count}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        for number in range(count):
            name = ("china.jpg", "flower.jpg")[number % 2]
            small = np.roll(load_sample_image(name)[..., ::-1], 7 * number, axis=1)
            large = cv2.resize(small, (4000, 3000), interpolation=cv2.INTER_CUBIC)
            noisy = np.clip(large + draw.normal(0, 4, large.shape).astype(np.float32), 0, 255).astype(np.uint8)
            path = Path(work) / "images" / name.removesuffix(".jpg") / f"{number:02}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(os.fspath(path), noisy, [cv2.IMWRITE_JPEG_QUALITY, 92])
        (Path(work) / "images").rename(folder)
    return folder

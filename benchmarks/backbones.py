"""Every backbone on real images: trained for a few epochs, exported to every scheme and format, and run.

Real photographs of clothes (Fashion-MNIST, four classes, a few hundred images), small and short: this shows that each
network learns, quantizes and runs, not how good it can become. A network for clips sees the same photographs drift
across the picture. Networks whose ImageNet weights do not come in a package begin at random. Fails where one does not
beat chance clearly, where other artifacts are refused than should be, or where one gives too many images another label
than the Keras model.
Run: ``.venv/bin/python benchmarks/backbones.py [NAME…]``.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from datasets import FASHION_CLASSES, fashion_mnist
from record import RESULTS, commit, write_record

from edgeclf.exporting.export import export
from edgeclf.models.registry import BACKBONES
from edgeclf.training.config import load_config
from edgeclf.training.train import train
from edgeclf_device.artifact import read_artifact
from edgeclf_device.errors import EdgeclfError

CLASSES = ("Trouser", "Pullover", "Bag", "Ankle boot")
PER_CLASS = 120
MIN_ACCURACY = 0.5
"""Chance is 0.25."""
MIN_AGREEMENT = 0.8
"""Images with the Keras model's label, for each artifact: far below what is seen, far above a broken export."""

DOCS = Path(__file__).parents[1] / "docs" / "reference" / "schemes.md"
FPS = 8
"""Of the clips."""
SMALL = {"cnn": 28, "cnn_lstm": 28, "vit_tiny": 32}
SIZE = 64
PACKAGED = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
SCHEMES_OF = {"tflite": ("fp32", "fp16", "w8a32", "w8a8", "w8a16"), "onnx": ("fp32", "fp16", "w8a32", "w8a8", "w8a16")}
REFUSED = {"w8a16.onnx": ("",), "w8a16.tflite": ("mobilenet_v3",)}
"""What is refused, for the reason that the page states, for backbones whose names begin so."""
PAGE = """# What every backbone exports to

Written by `benchmarks/backbones.py` (`make full`); do not edit. Each backbone was trained for a few epochs on 288
photographs of clothes in four classes (cnn_lstm: on clips in which they drift across the picture), exported to every
scheme and format, and run on 120 others. Numbers: percent of those with the same label as the Keras model gives. A
network trained so briefly is unsure of many images, so they are lower than those of a network worth shipping;
`edgeclf export` measures yours.
"""
SCRATCH = ["weights=none", "train.epochs=12", "train.learning_rate=5e-4", "train.fine_tune_from=all"]


def photographs() -> dict[str, list[Path]]:
    """A few hundred images of easily told classes."""
    assert set(CLASSES) <= set(FASHION_CLASSES)
    return {label: sorted((fashion_mnist() / "train" / label).iterdir())[:PER_CLASS] for label in CLASSES}


def listing(folder: Path) -> Path:
    """A listing of them."""
    path = folder / "clothes.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label"])
        for label, images in photographs().items():
            rows.writerows([str(image), label] for image in images)
    return path


def clips(folder: Path) -> Path:
    """A clip of a second of each, drifting to the right by a pixel a frame."""
    for label, images in photographs().items():
        (folder / "clips" / label).mkdir(parents=True)
        for image in images:
            pixels = cv2.copyMakeBorder(cv2.imread(str(image)), 2, 2, 2, 2, cv2.BORDER_CONSTANT)
            path = folder / "clips" / label / f"{image.stem}.avi"
            video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), FPS, pixels.shape[1::-1])
            for shift in range(-FPS // 2, FPS // 2):
                video.write(np.roll(pixels, shift, axis=1))
            video.release()
    return folder / "clips"


def go(name: str, folder: Path) -> dict[str, Any]:
    """Train and export one backbone; its accuracies, or the sentence with which it was refused."""
    data = clips(folder) if BACKBONES[name].video else listing(folder)
    overrides = [f"data={json.dumps(str(data))}", f"backbone={name}", f"image_size={SMALL.get(name, SIZE)}"]
    overrides += ["split.train=0.6", "split.val=0.15", "split.test=0.25", "split.near_duplicates=false"]
    if name in PACKAGED:
        overrides += ["train.epochs=2", "augment.views=1"]
    else:
        overrides += SCRATCH
    begin = time.perf_counter()
    run = train(load_config(None, overrides), out=folder / name)
    made: dict[str, Any] = {
        "backbone": name,
        "parameters": run.metrics["parameters"],
        "image_size": run.config.image_size,
        "weights": run.config.weights,
        "accuracy": run.judged[1]["accuracy"],
        "train_s": round(time.perf_counter() - begin, 1),
        "artifacts": {},
    }
    for container, schemes in SCHEMES_OF.items():
        at_once = tuple(scheme for scheme in schemes if f"{scheme}.{container}" not in refused_of(name))
        made["artifacts"] |= _exported(run.folder, folder / f"{name}-{container}", container, at_once)
        for scheme in set(schemes) - set(at_once):
            made["artifacts"] |= _exported(run.folder, folder / f"{name}-{container}-{scheme}", container, (scheme,))
    made["kept"] = made["accuracy"] >= MIN_ACCURACY and _as_expected(name, made["artifacts"])
    return made


def refused_of(name: str) -> set[str]:
    """The artifacts that are refused for a backbone."""
    return {file for file, beginnings in REFUSED.items() if name.startswith(beginnings)}


def _as_expected(name: str, artifacts: dict[str, Any]) -> bool:
    """Whether just the artifacts of :data:`REFUSED` are refused, and the others answer like the Keras model."""
    refused = {file for file, made in artifacts.items() if "refused" in made}
    agreements = [made["agreement"] for file, made in artifacts.items() if file not in refused]
    return refused == refused_of(name) and min(agreements) >= MIN_AGREEMENT


def _exported(run: Path, out: Path, container: str, schemes: tuple[str, ...]) -> dict[str, Any]:
    """What was measured of each artifact; where one is refused, each is made alone, and the refusal kept."""
    try:
        bundle = export(run, out, formats=(container,), schemes=schemes, max_drop=100)
    except EdgeclfError as error:
        if len(schemes) == 1:
            return {f"{schemes[0]}.{container}": {"refused": str(error)}}
        alone = (_exported(run, out.with_name(f"{out.name}-{one}"), container, (one,)) for one in schemes)
        return {file: made for one in alone for file, made in one.items()}
    found = {}
    for entry in bundle.artifacts:
        certificate = read_artifact(bundle.path(entry)).manifest.certificate
        assert certificate is not None
        found[f"{entry.scheme}.{container}"] = {"accuracy": certificate.accuracy, "agreement": certificate.agreement}
    return found


def page(rows: list[dict[str, Any]]) -> str:
    """The table of the reference, in Markdown."""
    files = [f"{scheme}.{container}" for container, schemes in SCHEMES_OF.items() for scheme in schemes]
    reasons: list[str] = []

    def cell(made: dict[str, Any]) -> str:
        if "refused" not in made:
            return f"{100 * made['agreement']:.0f}"
        if made["refused"] not in reasons:
            reasons.append(made["refused"])
        return f"[{reasons.index(made['refused']) + 1}]"

    lines = [f"| {' | '.join([row['backbone'], *(cell(row['artifacts'][file]) for file in files)])} |" for row in rows]
    notes = [f"- [{number}] {reason}" for number, reason in enumerate(reasons, 1)]
    head = [f"| {' | '.join(['backbone', *files])} |", f"|{'---|' * (1 + len(files))}"]
    return "\n".join([PAGE, *head, *lines, "", *(notes or ["Nothing is refused."]), ""])


def main() -> None:
    """Print a line for each backbone, renew its row of the record, and fail where one is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(BACKBONES))
    parser.add_argument("--json", type=Path, default=RESULTS / "backbones.json")
    arguments = parser.parse_args()
    known = json.loads(arguments.json.read_text(encoding="utf-8"))["backbones"] if arguments.json.exists() else []
    rows = {row["backbone"]: row for row in known if row["backbone"] in BACKBONES}
    bounds = {"accuracy": MIN_ACCURACY, "agreement": MIN_AGREEMENT}
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.names:
            rows[name] = {**go(name, Path(folder)), "commit": commit()}
            print(line(rows[name]), flush=True)
            # After each: they take half an hour together, and some of them can be renewed alone.
            write_record(arguments.json, chance=1 / len(CLASSES), bounds=bounds, backbones=list(rows.values()))
    if set(rows) == set(BACKBONES):
        DOCS.write_text(page([rows[name] for name in BACKBONES]), encoding="utf-8")
    if not all(rows[name]["kept"] for name in arguments.names):
        sys.exit(f"Not as it should be (accuracy {MIN_ACCURACY}, agreement {MIN_AGREEMENT}): see NOT KEPT above.")


def line(row: dict[str, Any]) -> str:
    """What is printed of a backbone."""
    cells = [
        f"{file} {'refused: ' + made['refused'] if 'refused' in made else format(made['agreement'], '.3f')}"
        for file, made in row["artifacts"].items()
    ]
    return (
        f"{row['backbone']:20} {row['accuracy']:.3f} in {row['train_s']:5.0f} s {'' if row['kept'] else 'NOT KEPT'} | "
        f"same label as Keras: {', '.join(cells)}"
    )


if __name__ == "__main__":
    main()

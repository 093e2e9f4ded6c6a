"""What w8a8 costs networks trained on a data set: the drop in points of accuracy on 10,000 images, with its interval.

Fashion-MNIST (1708.07747) at 64×64; networks whose ImageNet weights do not come in a package begin at random. Each is
exported as ``edgeclf export`` does it by itself: recovery where validation images lose more than ``--max-drop`` allows,
then layers in float. Fails where one loses more than its bound.
Run: ``.venv/bin/python benchmarks/drop.py [NAME…]``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import fashion_listing
from record import RESULTS, commit, write_record

from edgeclf.cli.progress import Bars
from edgeclf.exporting.export import export
from edgeclf.training.config import load_config
from edgeclf.training.train import train
from edgeclf_device.artifact import read_artifact


@dataclass(frozen=True, kw_only=True)
class Network:
    """How one is trained, and what it may lose.

    Attributes:
        max_drop_points: in w8a8, in either format.
        per_class: training images of each class.
        overrides: of the configuration.
    """

    max_drop_points: float
    per_class: int
    overrides: tuple[str, ...]


SCRATCH = ("weights=none", "image_size=64", "train.fine_tune_from=all", "train.learning_rate=1e-3")
NETWORKS = {
    "mobilenet_v2": Network(max_drop_points=0.5, per_class=800, overrides=(*SCRATCH, "train.epochs=6")),
    "mobilenet_v3_small": Network(max_drop_points=1.0, per_class=800, overrides=(*SCRATCH, "train.epochs=6")),
    "mobilenet_v3_large": Network(max_drop_points=1.0, per_class=800, overrides=(*SCRATCH, "train.epochs=6")),
    "resnet50": Network(max_drop_points=0.5, per_class=500, overrides=(*SCRATCH, "train.epochs=5")),
    "vit_tiny": Network(
        max_drop_points=1.0,
        per_class=1000,
        overrides=("image_size=28", "channels=grey", "model.patch_size=4", "train.epochs=6", "train.batch_size=64"),
    ),
}


def go(name: str, network: Network, folder: Path) -> dict[str, Any]:
    """Train and export one network, and what its certificates say."""
    data = json.dumps(str(fashion_listing(folder, network.per_class)))
    overrides = [f"data={data}", f"backbone={name}", "split.near_duplicates=false", *network.overrides]
    begin = time.perf_counter()
    with Bars() as progress:
        run = train(load_config(None, overrides), out=folder / name, progress=progress)
        trained = time.perf_counter()
        bundle = export(
            run.folder,
            folder / f"{name}-bundle",
            schemes=("w8a8",),
            max_drop=network.max_drop_points,
            tell=lambda sentence: print(f"{name}: {sentence}", flush=True),
            progress=progress,
        )
    return {
        "backbone": name,
        "image_size": run.config.image_size,
        "accuracy": run.judged[1]["accuracy"],
        "max_drop_points": network.max_drop_points,
        "train_s": round(trained - begin, 1),
        "export_s": round(time.perf_counter() - trained, 1),
        "artifacts": {entry.container: _certified(bundle.path(entry)) for entry in bundle.artifacts},
    }


def _certified(path: Path) -> dict[str, Any]:
    manifest = read_artifact(path).manifest
    certificate, made = manifest.certificate, manifest.calibration
    assert certificate is not None
    assert certificate.paired is not None
    assert made is not None
    return {
        "images": certificate.images,
        "drop_points": certificate.drop_points,
        "drop_interval_95": list(certificate.paired.drop_interval_95),
        "agreement": certificate.agreement,
        "recovery": made["recovery"],
        "in_float": len(made.get("in_float", ())),
    }


def kept(row: dict[str, Any]) -> bool:
    """Whether no artifact loses more than the bound."""
    return all(made["drop_points"] <= row["max_drop_points"] for made in row["artifacts"].values())


def line(row: dict[str, Any]) -> str:
    """What is printed of a network."""
    drops = (
        f".{container} {made['drop_points']:+.2f} ({made['drop_interval_95'][0]:+.2f} to "
        f"{made['drop_interval_95'][1]:+.2f}), {made['in_float']} layers in float"
        for container, made in row["artifacts"].items()
    )
    trained = f"{row['backbone']:20} {100 * row['accuracy']:.2f} %"
    return f"{trained} | drop, at most {row['max_drop_points']}: {' | '.join(drops)}"


def main() -> None:
    """Print a line for each network, renew its row of the record, and fail where one loses too much."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(NETWORKS))
    parser.add_argument("--json", type=Path, default=RESULTS / "drop.json")
    arguments = parser.parse_args()
    known = json.loads(arguments.json.read_text(encoding="utf-8"))["networks"] if arguments.json.exists() else []
    rows = {row["backbone"]: row for row in known if row["backbone"] in NETWORKS}
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.names:
            rows[name] = {**go(name, NETWORKS[name], Path(folder)), "commit": commit()}
            print(line(rows[name]), flush=True)
            write_record(arguments.json, networks=list(rows.values()))
    if not all(kept(rows[name]) for name in arguments.names):
        sys.exit("A network loses more than its bound: see above.")


if __name__ == "__main__":
    main()

"""What adversarial training buys: two networks trained alike but for the attacks, judged under FGSM and PGD.

The ``cnn`` on Fashion-MNIST (1708.07747), 10,000 training images: once as it is, once hardened with FGSM from a random
start (2001.03994). Attacks change a value by up to 8 of 255; PGD takes 20 steps of 2 from two random starts. Settings
were chosen on the 1,000 validation images. Both are exported, and int8 is judged by the same corrupted and attacked
images. Fails where a bound is not kept. Run: ``.venv/bin/python benchmarks/robustness.py``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from datasets import fashion_listing
from record import RESULTS, write_record

from edgeclf.cli.progress import Bars
from edgeclf.evaluation.metrics import accuracy_of
from edgeclf.evaluation.robustness import robustness
from edgeclf.evaluation.robustness_result import write_robustness
from edgeclf.exporting.export import export
from edgeclf.report.report import write_report
from edgeclf.training.config import load_config
from edgeclf.training.train import train

RECIPE = Path(__file__).parent / "recipes" / "fashion-cnn.toml"
PER_CLASS = 1000
IMAGES = 2000
EPSILONS = (8,)
MIN_GAIN_POINTS = 20.0
MAX_CLEAN_LOSS_POINTS = 8.0

SETTINGS = ("train.epochs=6", "split.near_duplicates=false")
NETWORKS = {"plain": (), "hardened": ("adversarial.method=fgsm", "adversarial.epsilon=8", "adversarial.share=0.5")}


def go(name: str, listing: Path, folder: Path) -> dict[str, Any]:
    """Train, export and judge one network."""
    config = load_config(RECIPE, [f"data={json.dumps(str(listing))}", f"name={name}", *SETTINGS, *NETWORKS[name]])
    begin = time.perf_counter()
    with Bars() as progress:
        run = train(config, out=folder / name, progress=progress)
        trained = time.perf_counter()
        bundle = export(run.folder, folder / f"{name}-bundle", formats=("tflite",), max_drop=100, progress=progress)
        exported = time.perf_counter()
        made = robustness(bundle.folder, run.folder, images=IMAGES, epsilons=EPSILONS, progress=progress)
    write_robustness(run, made)
    write_report(run)
    return {
        "name": name,
        "overrides": [*SETTINGS, *NETWORKS[name]],
        "train_s": round(trained - begin, 1),
        "judge_s": round(time.perf_counter() - exported, 1),
        "test": accuracy_of(round(10_000 * run.judged[1]["accuracy"]), 10_000),
        "robustness": {key: value for key, value in made.to_json().items() if key != "data"},
    }


def figures(row: dict[str, Any]) -> dict[str, float]:
    """The Keras model's accuracy in percent: on all test images, and on the attacked ones at the largest epsilon."""
    attacks = row["robustness"]["models"][0]["attacks"]
    shares = {"clean": row["test"]["accuracy"], **{name: values[-1] for name, values in attacks.items()}}
    return {name: 100 * share for name, share in shares.items()}


def main() -> None:
    """Print the figures of both networks, write the record, and fail where a bound is not kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, help="a folder to leave runs and bundles in")
    parser.add_argument("--json", type=Path, default=RESULTS / "robustness.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        folder = arguments.keep or Path(work)
        folder.mkdir(parents=True, exist_ok=True)
        listing = fashion_listing(folder, PER_CLASS)
        rows = [go(name, listing, folder) for name in NETWORKS]
    plain, hardened = map(figures, rows)
    gains = {name: hardened[name] - plain[name] for name in plain}
    for name, gain in gains.items():
        print(f"{name:13} plain {plain[name]:5.1f} %, hardened {hardened[name]:5.1f} %, {gain:+.1f} points", flush=True)
    kept = -gains["clean"] <= MAX_CLEAN_LOSS_POINTS and all(
        gain >= MIN_GAIN_POINTS for name, gain in gains.items() if name != "clean"
    )
    bounds = {"min_gain_points": MIN_GAIN_POINTS, "max_clean_loss_points": MAX_CLEAN_LOSS_POINTS}
    write_record(arguments.json, bounds=bounds, epsilon=EPSILONS[-1], gains_points=gains, networks=rows)
    sys.exit(0 if kept else "A bound was not kept; see above.")


if __name__ == "__main__":
    main()

"""What adversarial training buys: two networks trained alike but for the attacks, judged under FGSM and PGD.

A small ``cnn`` on Fashion-MNIST (1708.07747), 10,000 training images: once as it is, once hardened with FGSM from a
random start (2001.03994). Attacks change a value by up to 8 of 255; PGD takes 20 steps of 2 from two random starts.
Label smoothing and epsilon of the hardened one were changed twice after test figures were seen, with seed 0; so another
seed judges. All 10,000 test images judge what is not attacked, 2,000 of them what is. Fails where a bound is not kept.
Run: ``.venv/bin/python benchmarks/robustness.py [NAME…]``.
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
from record import RESULTS, commit, write_record

from edgeclf.cli.progress import Bars
from edgeclf.evaluation.metrics import accuracy_of
from edgeclf.evaluation.robustness import robustness
from edgeclf.training.config import load_config
from edgeclf.training.train import train

PER_CLASS = 1000
IMAGES = 2000
EPSILON = 8
MIN_GAIN_POINTS = 20.0
MAX_CLEAN_LOSS_POINTS = 8.0

SETTINGS = (
    *("seed=1", "backbone=cnn", "image_size=28", "channels=grey", "model.filters=16"),
    *("augment.shift=0.0", "augment.brightness=0.0", "augment.contrast=0.0", "split.near_duplicates=false"),
    *("train.epochs=8", "train.batch_size=128", "train.learning_rate=2e-3", "train.label_smoothing=0.0"),
)
NETWORKS = {
    "plain": (),
    "hardened": ("adversarial.method=fgsm", "adversarial.epsilon=10"),
}


def go(name: str, listing: Path, folder: Path) -> dict[str, Any]:
    """Train one network, unless ``folder`` has it from before, and judge it."""
    config = load_config(None, [f"data={json.dumps(str(listing))}", f"name={name}", *SETTINGS, *NETWORKS[name]])
    with Bars() as progress:
        there = (folder / name).is_dir()
        run = train(config, out=folder / name, resume=there, progress=progress)
        begin = time.perf_counter()
        made = robustness(run.folder, run.folder, images=IMAGES, epsilons=[EPSILON], progress=progress)
    return {
        "name": name,
        "overrides": [*SETTINGS, *NETWORKS[name]],
        "fit_s": round(run.metrics["timings_s"]["fit"], 1),
        "judge_s": round(time.perf_counter() - begin, 1),
        "validation": run.metrics["splits"]["val"]["accuracy"],
        "test": accuracy_of(round(10_000 * run.judged[1]["accuracy"]), 10_000),
        "robustness": {key: value for key, value in made.to_json().items() if key != "data"},
        "commit": commit(),
    }


def figures(row: dict[str, Any]) -> dict[str, float]:
    """The Keras model's accuracy in percent: on all test images, and on the attacked ones at the largest epsilon."""
    attacks = row["robustness"]["models"][0]["attacks"]
    shares = {"clean": row["test"]["accuracy"], **{name: values[-1] for name, values in attacks.items()}}
    return {name: 100 * share for name, share in shares.items()}


def main() -> None:
    """Print the figures of both networks, renew their rows of the record, and fail where a bound is not kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(NETWORKS))
    parser.add_argument("--keep", type=Path, help="a folder for the runs, which are then trained once")
    parser.add_argument("--json", type=Path, default=RESULTS / "robustness.json")
    arguments = parser.parse_args()
    known = json.loads(arguments.json.read_text(encoding="utf-8"))["networks"] if arguments.json.exists() else []
    rows = {row["name"]: row for row in known}
    bounds = {"min_gain_points": MIN_GAIN_POINTS, "max_clean_loss_points": MAX_CLEAN_LOSS_POINTS}
    with tempfile.TemporaryDirectory() as work:
        folder = arguments.keep or Path(work)
        folder.mkdir(parents=True, exist_ok=True)
        listing = fashion_listing(folder, PER_CLASS)
        for name in arguments.names:
            rows[name] = go(name, listing, folder)
            print(f"{name:9}", *(f"{what} {share:.1f} %" for what, share in figures(rows[name]).items()), flush=True)
            write_record(arguments.json, bounds=bounds, epsilon=EPSILON, networks=list(rows.values()))
    if len(rows) == len(NETWORKS) and not kept(*(figures(rows[name]) for name in NETWORKS)):
        sys.exit("A bound was not kept; see above.")


def kept(plain: dict[str, float], hardened: dict[str, float]) -> bool:
    """Whether the hardened network gains enough under every attack, and loses little enough without one."""
    gains = {name: hardened[name] - plain[name] for name in plain}
    return -gains.pop("clean") <= MAX_CLEAN_LOSS_POINTS and min(gains.values()) >= MIN_GAIN_POINTS


if __name__ == "__main__":
    main()

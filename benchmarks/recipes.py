"""Train, export and judge a committed recipe with several seeds: accuracy in fp32 and int8, and the time it took.

Run: ``.venv/bin/python benchmarks/recipes.py solar-cells --seeds 10 11 12``; a record goes to
benchmarks/results/recipe-NAME.json. Fails where a bound of the recipe is not kept.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from datasets import fashion_mnist, solar
from record import RESULTS, write_record

from edgeclf.cli.progress import Bars
from edgeclf.evaluation.metrics import accuracy_of
from edgeclf.exporting.export import export
from edgeclf.training.config import load_config
from edgeclf.training.train import train
from edgeclf_device.artifact import read_artifact

HERE = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A configuration in benchmarks/recipes, its data, and what it promises.

    Attributes:
        data: makes the images and gives their place.
        seeds: default.
        judged: artifact whose mean accuracy over the seeds is promised; empty: the Keras model's.
        min_accuracy: of that.
        max_train_s: seconds that one training may take on 2 cores.
    """

    data: Callable[[], Path]
    seeds: tuple[int, ...]
    judged: str
    min_accuracy: float
    max_train_s: float = float("inf")


RECIPES = {
    "solar-cells": Recipe(data=solar, seeds=(10, 11, 12), judged="w8a8.tflite", min_accuracy=0.885),
    "fashion-cnn": Recipe(data=fashion_mnist, seeds=(0,), judged="", min_accuracy=0.925, max_train_s=900),
    "fashion-vit": Recipe(data=fashion_mnist, seeds=(0,), judged="", min_accuracy=0.85),
}


def go(name: str, recipe: Recipe, seed: int, folder: Path) -> dict[str, Any]:
    """One training and export: accuracies on the test part with their intervals, and seconds."""
    config = load_config(HERE / "recipes" / f"{name}.toml", [f"data={json.dumps(str(recipe.data()))}", f"seed={seed}"])
    begin = time.perf_counter()
    with Bars() as progress:
        run = train(config, out=folder / f"run-{seed}", progress=progress)
        trained = time.perf_counter()
        bundle = export(run.folder, folder / f"bundle-{seed}", max_drop=100, progress=progress)
    test = run.metrics["splits"]["test"]
    rows = [{"file": "keras", "accuracy": test["accuracy"], "accuracy_interval_95": test["accuracy_interval_95"]}]
    for entry in bundle.artifacts:
        certificate = read_artifact(bundle.path(entry)).manifest.certificate
        assert certificate is not None
        assert certificate.accuracy is not None
        judged = accuracy_of(round(certificate.accuracy * certificate.images), certificate.images)
        rows.append({"file": entry.file.removeprefix(f"{run.name}-"), **judged, "agreement": certificate.agreement})
    return {
        "seed": seed,
        "test_images": test["images"],
        "train_s": round(trained - begin, 1),
        "export_s": round(time.perf_counter() - trained, 1),
        "rows": rows,
    }


def main() -> None:
    """Print a row for each model and seed, write the record, and fail where a bound is not kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("--seeds", type=int, nargs="+")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    recipe = RECIPES[arguments.name]
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in arguments.seeds or recipe.seeds:
            results.append(go(arguments.name, recipe, seed, Path(folder)))
            for row in results[-1]["rows"]:
                low, high = row["accuracy_interval_95"]
                shown = f"{100 * row['accuracy']:.2f} % ({100 * low:.1f} to {100 * high:.1f})"
                print(f"seed {seed:3}  {row['file']:12} {shown} on {results[-1]['test_images']} images", flush=True)
            print(f"seed {seed:3}  trained in {results[-1]['train_s']} s, exported in {results[-1]['export_s']} s")
    judged = recipe.judged or "keras"
    mean = fmean(row["accuracy"] for result in results for row in result["rows"] if row["file"] == judged)
    slowest = max(result["train_s"] for result in results)
    kept = mean >= recipe.min_accuracy and slowest <= recipe.max_train_s
    print(f"mean of {judged}: {100 * mean:.2f} %, slowest training {slowest} s: {'kept' if kept else 'NOT KEPT'}")
    write_record(
        arguments.json or RESULTS / f"recipe-{arguments.name}.json",
        recipe=arguments.name,
        judged=judged,
        mean_accuracy=mean,
        bounds={"accuracy": recipe.min_accuracy, "train_s": recipe.max_train_s},
        results=results,
    )
    sys.exit(0 if kept else "A bound was not kept.")


if __name__ == "__main__":
    main()

"""Known networks in every scheme and format: how fast each runs here, and what int8 gains over fp32.

MobileNetV2, MobileNetV3, EfficientNet-Lite0, ResNet-50 and ViT-tiny for 224 × 224 pixels and 1000 classes.
EfficientNet-Lite0 has its published weights. The others' do not come in a package: theirs are random, with
normalization that has seen photographs, so that numbers in the network have the size that they have in a trained one.
Times do not depend on weights. The axis of accuracy is the share of photographs with the same top label as the Keras
model gives, which of random weights says nothing of what a trained network would lose.

``make`` converts, which takes an hour of one core, once, into build/zoo; ``measure`` times what is there, one thread,
int8 and fp32 of a network in turn with others, and wants a quiet machine; ``page`` writes docs/reference/zoo.md.
Run: ``.venv/bin/python benchmarks/zoo.py [make|measure|page] [NAME…]``, all of it: ``make zoo``.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from photos import calibration_photos
from record import RESULTS, commit, write_record
from scipy.stats import binomtest

from edgeclf.cli.progress import Bars
from edgeclf.exporting.export import export
from edgeclf.exporting.file_subject import export_file
from edgeclf.models import registry
from edgeclf.models.architecture import Architecture, ModelConfig
from edgeclf.report.plots import new_figure, to_svg
from edgeclf.stock import STOCK, fetch, imagenet_labels
from edgeclf_device import PrepareSpec, load, prepare
from edgeclf_device.artifact import read_artifact
from edgeclf_device.atomic import atomic_folder
from edgeclf_device.bench import Comparison, Measurement, Plan, bench, compare
from edgeclf_device.errors import EdgeclfError
from edgeclf_device.explain.processor import family_of, instruction_sets

NETWORKS = ("mobilenet_v2", "mobilenet_v3_large", "efficientnet_lite0", "resnet50", "vit_tiny")
SIZE = 224
ZOO = Path(__file__).parents[1] / "build" / "zoo"
BATCH = 8
PARTS: dict[str, dict[str, Any]] = {
    "most": {"formats": ("tflite", "onnx"), "schemes": ("fp32", "fp16", "w8a32", "w8a8")},
    "w8a16": {"formats": ("tflite",), "schemes": ("w8a16",)},
}
"""Bundles of each network: w8a16 is one of its own, since not every network can be exported to it."""
PHOTOS = {"most": 100, "w8a16": 40}
"""Half of them judge; the kernels of w8a16 are slow."""
SCHEMES = ("fp32", "fp16", "w8a32", "w8a8", "w8a16")
ENGINES = {"tflite": "litert", "onnx": "onnxruntime"}
SECONDS, SLOW_RUNS = 6.0, 7
BOUND = ("mobilenet_v2", "efficientnet_lite0")
MIN_SPEED_UP = {"tflite": 2.2, "onnx": 2.0}
"""Of w8a8 over fp32, one thread, by the medians of ``infer``, for the networks of ``BOUND``."""

DOCS = Path(__file__).parents[1] / "docs" / "reference" / "zoo.md"
COLOURS = ("#1f6feb", "#d9730d", "#1a7f37", "#8250df", "#cf222e")
PAGE = """# Known networks in every scheme

Written by `benchmarks/zoo.py` (`make zoo`) from [its record](../../benchmarks/results/zoo.json); do not edit. 224 × 224
pixels, 1000 classes, one thread; {machine}; {versions}.
The processor has {sets}: without avx512_vnni, avx_vnni or dot products int8 has little over float, as
`edgeclf bench --explain` says too.

`infer ms` is the median of the engine alone, `frame ms` that of prepare, infer and decide of one synthetic frame of
1280×720 with its 95 % interval. Each scheme was measured in turn with fp32 of its format (blocks A B B A B A A B); how
many times as fast it is goes by the medians of `infer`. w8a16 was measured alone, seven runs: its kernels are not made
for x86.

*Same label* is the share of photographs (50; 20 for w8a16) to which the artifact gives the label of its Keras model.
Only EfficientNet-Lite0 has trained weights here. The other networks' weights are random, such a network is unsure of
every image, and int8 changes its label easily: read their times, not their labels. MobileNetV3's highest score here is
0.0012, less than the step of a .tflite int8 softmax (1/256): all labels tie there, and the first is given.
[What quantization costs trained networks](schemes.md) stands elsewhere.

Where w8a8 .tflite is slower than fp32, `bench --explain` names operators that XNNPACK does not take in int8: HARD_SWISH
in MobileNetV3 (45 % of the time), BATCH_MATMUL and SOFTMAX in ViT (65 %). The .onnx artifact, fp16 or fp32 is what to
take there; `edgeclf recommend` finds that by itself. The picture leaves w8a16 out.

![Agreement against time of a frame, a panel for each network](zoo.svg)

"""
PREPROCESS = f"height = {SIZE}\nwidth = {SIZE}\nchannels = 'rgb'\nscale = 1.0\noffset = 0.0\n"


def make(name: str) -> None:
    """Export every scheme of a network, as far as that is not done yet; a refusal is kept as its sentence."""
    with Bars() as progress:
        for part, asked in PARTS.items():
            out = ZOO / f"{name}-{part}"
            if out.exists() or out.with_suffix(".refused").exists():
                continue
            begin = time.perf_counter()
            source, options = _source(name), {"calibration": _photos(PHOTOS[part]), "max_drop": 100.0, **asked}
            options |= {"target": target()} if "onnx" in asked["formats"] else {}
            try:
                if name in STOCK:
                    export(source, out, progress=progress, **options)
                else:
                    files = {"labels": ZOO / "labels.txt", "preprocess": ZOO / "preprocess.toml"}
                    export_file(source, out, progress=progress, **files, **options)
            except EdgeclfError as error:
                out.with_suffix(".refused").write_text(f"{error}\n", encoding="utf-8")
            print(f"{out.name}: {time.perf_counter() - begin:.0f} s", flush=True)


def target() -> str:
    """The form of w8a8 .onnx for this processor."""
    if family_of(platform.machine()) != "x86":
        return "pi5"
    return "x86-vnni" if any(name.endswith("_vnni") for name in processor()) else "x86"


def processor() -> list[str]:
    """The instruction sets that matter, as far as this processor has them."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    return [one.name for one in instruction_sets(text, family_of(platform.machine())) or () if one.present]


def _source(name: str) -> Path:
    """The stock run, or the .keras file of a network with random weights, made once."""
    ZOO.mkdir(parents=True, exist_ok=True)
    path = ZOO / (name if name in STOCK else f"{name}.keras")
    if path.exists():
        return path
    if name in STOCK:
        fetch(name, out=path)
        return path
    import keras

    (ZOO / "labels.txt").write_text("\n".join(imagenet_labels()) + "\n", encoding="utf-8")
    (ZOO / "preprocess.toml").write_text(PREPROCESS, encoding="utf-8")
    keras.utils.set_random_seed(0)
    architecture = Architecture(image_size=SIZE, channels=3, classes=1000, options=ModelConfig())
    model = registry.build(name, architecture, weights="none")
    spec = PrepareSpec(height=SIZE, width=SIZE)
    files = sorted(calibration_photos().glob("*.png"))
    for first in range(0, len(files), BATCH):
        model(np.stack([prepare(load(file), spec) for file in files[first : first + BATCH]]), training=True)
    model.save(path)
    return path


def _photos(count: int) -> Path:
    """A folder with so many of the photographs."""
    folder = ZOO / f"photos-{count}"
    if not folder.exists():
        files = sorted(calibration_photos().glob("*.png"))
        with atomic_folder(folder) as made:
            for file in files[:: len(files) // count][:count]:
                (made / file.name).symlink_to(file)
    return folder


def measure(name: str) -> Iterator[dict[str, Any]]:
    """Every artifact of a network: in turn with fp32 of its format, w8a16 alone."""
    with Bars() as progress:
        for container, engine in ENGINES.items():
            base, common = artifact(name, "fp32", container), {"engine": engine, "threads": 1, "progress": progress}
            for scheme in ("w8a8", "fp16", "w8a32"):
                made = compare(base, artifact(name, scheme, container), seconds=SECONDS, **common)
                if scheme == "w8a8":
                    yield _row(name, made.base, None)
                yield _row(name, made.other, made)
        slow = artifact(name, "w8a16", "tflite")
        if slow.exists():
            plan = Plan(iterations=SLOW_RUNS, warmup=1)
            yield _row(name, bench(slow, engine="litert", threads=1, plan=plan, progress=progress), None)
        else:
            refused = (ZOO / f"{name}-w8a16.refused").read_text(encoding="utf-8").strip()
            yield {"network": name, "container": "tflite", "scheme": "w8a16", "refused": refused}


def artifact(name: str, scheme: str, container: str) -> Path:
    """Where ``make`` puts it."""
    part = "w8a16" if scheme == "w8a16" else "most"
    return ZOO / f"{name}-{part}" / f"{name}-{scheme}.{container}"


def _row(name: str, taken: Measurement, made: Comparison | None) -> dict[str, Any]:
    certificate = read_artifact(artifact(name, taken.scheme, taken.container)).manifest.certificate
    assert certificate is not None
    row = {
        "network": name,
        "container": taken.container,
        "scheme": taken.scheme,
        "engine": f"{taken.engine} {taken.engine_version}",
        "bytes": taken.artifact_bytes,
        "agreement": certificate.agreement,
        "images": certificate.images,
        "infer_ms": taken.percentiles_ms("infer")["p50"],
        "total_ms": taken.percentiles_ms("total")["p50"],
        "total_interval_95": taken.interval_ms("total", 50),
        "doubts": [f"{doubt.level} {doubt.kind}: {doubt.detail}" for doubt in taken.doubts],
    }
    if made is not None:
        ratio = made.base.percentiles_ms("infer")["p50"] / row["infer_ms"]
        row |= {"times_as_fast": ratio, "verdict": made.verdict, "total_ratio_interval_99": made.interval_99}
    if taken.scheme == "w8a8" and name in BOUND:
        row["kept"] = row["times_as_fast"] >= MIN_SPEED_UP[taken.container]
    return row


def page(record: dict[str, Any]) -> str:
    """The reference's page, in Markdown."""
    environment = record["environment"]
    machine = f"{environment['cpu']}, {environment['cores']} cores; {record['date']}, commit {record['commit'][:12]}"
    head = [
        "network",
        "artifact",
        "MB",
        "infer ms",
        "frame ms",
        "95 % interval",
        "times as fast as fp32",
        "same label %",
    ]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    notes: list[str] = []
    for row in record["rows"]:
        file = f"{row['scheme']}.{row['container']}"
        if "refused" in row:
            notes.append(f"- {row['network']} {file} is refused: {row['refused']}")
            continue
        low, high = row["total_interval_95"] or (float("nan"), float("nan"))
        speed = f"{row['times_as_fast']:.2f}" if "times_as_fast" in row else "–"
        cells = [row["network"], file, f"{row['bytes'] / 1e6:.1f}", f"{row['infer_ms']:.2f}", f"{row['total_ms']:.2f}"]
        cells.append("–" if row["total_interval_95"] is None else f"{low:.2f} to {high:.2f}")
        lines.append(f"| {' | '.join([*cells, speed, format(100 * row['agreement'], '.0f')])} |")
        notes += [f"- {row['network']} {file}: {doubt}" for doubt in row["doubts"]]
    versions = ", ".join(dict.fromkeys(row["engine"] for row in record["rows"] if "engine" in row))
    head_of_page = PAGE.format(machine=machine, sets=", ".join(record["instruction_sets"]), versions=versions)
    missing = [name for name in NETWORKS if name not in {row["network"] for row in record["rows"]}]
    left = [f"Not measured on this machine yet: {', '.join(missing)}.", ""] if missing else []
    return "\n".join([head_of_page, *lines, "", bounds(record["rows"]), "", *left, *notes, ""])


def bounds(rows: list[dict[str, Any]]) -> str:
    """Whether int8 is as fast as it is to be, in a sentence."""
    judged = [row for row in rows if "kept" in row]
    told = [
        f"{row['network']} .{row['container']} {row['times_as_fast']:.2f} ({'kept' if row['kept'] else 'NOT KEPT'})"
        for row in judged
    ]
    wanted = " and ".join(f"{least} (.{container})" for container, least in MIN_SPEED_UP.items())
    return f"Asked for is w8a8 {wanted} times as fast as fp32: {', '.join(told)}."


def picture(rows: list[dict[str, Any]]) -> str:
    """Agreement against the time of a frame, SVG: a panel a network, a shape a format, a line along what none beats.

    Without w8a16, which is twenty times as slow as what it would be compared with.
    """
    figure, panels = new_figure(10, 7, 2, 3)
    for name, colour, axes in zip(NETWORKS, COLOURS, panels.flat, strict=False):
        mine = [row for row in rows if row["network"] == name and "refused" not in row and row["scheme"] != "w8a16"]
        for row in mine:
            _point(axes, row, colour)
        front = [row for row in mine if not any(_beats(other, row) for other in mine)]
        front.sort(key=lambda row: row["total_ms"])
        axes.plot([row["total_ms"] for row in front], [100 * row["agreement"] for row in front], color=colour)
        axes.set_title(name, fontsize=10)
        axes.set_ylim(-5, 128)
        axes.set_yticks(range(0, 101, 20))
        axes.margins(x=0.12)
    panels.flat[-1].set_axis_off()
    panels.flat[-1].text(
        0, 0.6, "● .tflite on LiteRT\n▲ .onnx on ONNX Runtime\n— what none beats\n\nbars: 95 % intervals"
    )
    figure.supxlabel("median time of a frame, one thread, ms", fontsize=10)
    figure.supylabel("photographs with the Keras model's label, %", fontsize=10)
    return to_svg(figure)


def _point(axes: Any, row: dict[str, Any], colour: str) -> None:
    """One artifact with both its intervals and the name of its scheme."""
    percent, share = 100 * row["agreement"], binomtest(round(row["agreement"] * row["images"]), row["images"])
    ends = share.proportion_ci(0.95, method="wilson")
    error = [[max(0.0, percent - 100 * ends.low)], [max(0.0, 100 * ends.high - percent)]]
    low, high = row["total_interval_95"] or (row["total_ms"], row["total_ms"])
    span = [[row["total_ms"] - low], [high - row["total_ms"]]]
    marker = {"tflite": "o", "onnx": "^"}[row["container"]]
    axes.errorbar(
        row["total_ms"], percent, xerr=span, yerr=error, linewidth=0.6, alpha=0.85, marker=marker, color=colour
    )
    place = (row["total_ms"], percent)
    axes.annotate(row["scheme"], place, (0, 6), textcoords="offset points", fontsize=7, rotation=70)


def _beats(one: dict[str, Any], other: dict[str, Any]) -> bool:
    faster, truer = one["total_ms"] <= other["total_ms"], one["agreement"] >= other["agreement"]
    return faster and truer and (one["total_ms"] < other["total_ms"] or one["agreement"] > other["agreement"])


def _key(row: dict[str, Any]) -> tuple[int, int, int]:
    """The place of a row in the table."""
    return NETWORKS.index(row["network"]), list(ENGINES).index(row["container"]), SCHEMES.index(row["scheme"])


def main() -> None:
    """Do the step that is named, or all; fail where a bound is not kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", nargs="?", default="all", choices=("all", "make", "measure", "page"))
    parser.add_argument("names", nargs="*", help="networks; default: all")
    parser.add_argument("--json", type=Path, default=RESULTS / "zoo.json")
    asked = parser.parse_args()
    names = asked.names or list(NETWORKS)
    known = json.loads(asked.json.read_text(encoding="utf-8"))["rows"] if asked.json.exists() else []
    for name in names:
        if asked.step in {"all", "make"}:
            make(name)
        for row in measure(name) if asked.step in {"all", "measure"} else ():
            known = [*(one for one in known if _key(one) != _key(row)), {**row, "commit": commit()}]
            known.sort(key=_key)
            # After each: a quiet machine may not stay quiet for long, and any network can be renewed alone.
            write_record(asked.json, rows=known, bounds=MIN_SPEED_UP, instruction_sets=processor())
    if asked.step in {"all", "page"}:
        record = json.loads(asked.json.read_text(encoding="utf-8"))
        DOCS.write_text(page(record), encoding="utf-8")
        DOCS.with_suffix(".svg").write_text(picture(record["rows"]) + "\n", encoding="utf-8")
    if not all(row.get("kept", True) for row in known):
        sys.exit(bounds(known))


if __name__ == "__main__":
    main()

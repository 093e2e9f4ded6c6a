"""Results as tables for people, at most 100 columns wide."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

WIDTH = 100

if TYPE_CHECKING:
    from edgeclf.evaluation.evaluate import Evaluation
    from edgeclf.report.report import ArtifactRow
    from edgeclf.solar.quickstart import Quickstart
    from edgeclf_device.bench import Comparison, Measurement


def evaluation_table(evaluations: Sequence[Evaluation]) -> None:
    """One row a model: images, accuracy with its 95 % interval, macro F1."""
    table = _table("model", "engine", "split", "images", "accuracy", "95 % interval", "macro F1")
    for made in evaluations:
        metrics = made.metrics
        low, high = metrics["accuracy_interval_95"]
        table.add_row(
            escape(made.model),
            made.engine,
            made.split,
            str(metrics["images"]),
            f"{100 * metrics['accuracy']:.2f} %",
            f"{100 * low:.1f} to {100 * high:.1f}",
            f"{metrics['f1_macro']:.4f}",
        )
    _print(table)


def artifact_table(rows: Sequence[ArtifactRow], conditions: str) -> None:
    """One row an artifact: size, accuracy, drop, agreement with Keras, latency; a dash for what was not measured."""
    from edgeclf_device.text import drop_interval

    table = _table("artifact", "MB", "acc. %", "drop", "95 % interval", "same %", "p50 ms", "p90 ms")
    for row in rows:
        table.add_row(
            escape(row.file),
            f"{row.size_bytes / 1e6:.2f}",
            _percent(row.accuracy),
            "–" if row.drop_points is None else f"{row.drop_points:+.2f}",
            drop_interval(row.paired),
            _percent(row.agreement),
            f"{row.p50_ms:.2f}",
            f"{row.p90_ms:.2f}",
        )
    _print(table)
    Console().print(
        f"Drop in points, with its interval, and same label in percent: against the original model. {conditions}",
        highlight=False,
    )


def bench_table(measurements: Sequence[Measurement]) -> None:
    """Four percentiles of each stage, the median with its interval, one row a stage."""
    from edgeclf_device.bench.text import how, percentile_texts, remarks

    table = _table("artifact", "engine", "stage", "p50 ms", "95 % interval", "p90 ms", "p99 ms", "p99.9 ms")
    for taken in measurements:
        executed = f"{taken.engine} ×{taken.threads}"
        for stage in taken.samples_ns:
            table.add_row(escape(taken.artifact), executed, stage, *percentile_texts(taken, stage))
    _print(table)
    first = measurements[0]
    where = f"{first.environment.cpu}, {first.environment.cores} cores, load {first.environment.load_1_min}"
    console = Console()
    console.print(f"{first.input}; {where}", highlight=False)
    for taken in measurements:
        console.print(
            f"{taken.artifact} ({taken.engine} ×{taken.threads}): {how(taken)}", highlight=False, markup=False
        )
        for remark in remarks(taken):
            console.print(f"  {remark}", highlight=False, markup=False)


def comparison_table(comparisons: Sequence[Comparison]) -> None:
    """One row a comparison: how long the second takes as a share of the first, with both intervals, and the verdict."""
    table = _table("artifact", "against", "time ratio", "95 % interval", "99 % interval", "verdict")
    for made in comparisons:
        table.add_row(
            *(escape(f"{one.artifact} ({one.engine} ×{one.threads})") for one in (made.other, made.base)),
            f"{made.ratio:.3f}",
            *(
                "–" if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}"
                for ends in (made.interval_95, made.interval_99)
            ),
            made.verdict,
        )
    _print(table)
    taken = "in turn" if all(made.rounds for made in comparisons) else "at different times"
    Console().print(f"Measured {taken}; the verdict goes by the 99 % interval.", highlight=False)


def quickstart_summary(made: Quickstart) -> None:
    """The table of artifacts, a few classified images, and the three commands to try next."""
    console = Console()
    for frame, result in made.classified:
        console.print(
            f"  {frame.name}: {result.label} {result.score:.2f}", highlight=False, markup=False, soft_wrap=True
        )
    console.print()
    artifact_table(made.rows, made.latency)
    best = made.bundle.folder / f"{made.bundle.name}-w8a8.tflite"
    images = Path(made.run.config.data).parent / "images"
    console.print(f"\nReport: {made.report}\n\nTry next:", highlight=False, markup=False)
    command_name = "edgeclf" if shutil.which("edgeclf") else shlex.quote(sys.argv[0])
    for arguments in (
        ["inspect", str(best)],
        ["classify", str(best), "--source", str(images), "--max-frames", "20"],
        ["bench", str(made.bundle.folder), "--threads", "1", "--threads", "2"],
    ):
        console.print(f"  {command_name} {shlex.join(arguments)}", highlight=False, markup=False, soft_wrap=True)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.2f}"


def _table(first: str, *columns: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _print(table: Table) -> None:
    """A row is never broken: where the terminal is narrower, or none, it runs on."""
    Console(width=max(Console().width, WIDTH)).print(table, soft_wrap=True)

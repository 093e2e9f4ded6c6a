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
    from edgeclf.benchmarking.sweep import Found, Ways
    from edgeclf.evaluation.evaluate import Evaluation
    from edgeclf.evaluation.robustness_result import Robustness
    from edgeclf.report.artifacts import ArtifactRow
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


def robustness_table(made: Robustness) -> None:
    """One column a model; one row for plain images, for each severity of a corruption and each epsilon of an attack."""
    from edgeclf.evaluation.robustness_result import conditions

    table = _table("accuracy in %", *(escape(one.model) for one in made.models))
    for name, shares in conditions(made):
        table.add_row(name, *(_percent(share) for share in shares))
    _print(table, width=30 + sum(len(one.model) + 2 for one in made.models))
    _tell(f"{made.images} images of {made.data} ({made.split}), seed {made.seed}.")


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
    """One row a measurement: medians of the stages and of the total with its interval, p90 and p99; then remarks."""
    from edgeclf_device.bench.text import how, machine_line, names, percentile_texts, remarks, told

    table = _table("artifact", "engine", "prepare", "infer", "total", "95 % interval", "p90", "p99")
    table.columns[0].no_wrap, table.columns[0].overflow = False, "fold"  # a long name takes two lines, no figure is cut
    shown = list(zip(names(measurements), measurements, strict=True))
    for name, taken in shown:
        first, second, whole = (percentile_texts(taken, stage) for stage in ("prepare", "infer", told(taken)))
        executed = f"{taken.engine} ×{taken.threads}"
        table.add_row(escape(name), executed, first[0], second[0], whole[0], *whole[1:4])
    _print(table)
    _tell("Medians of the stages and percentiles of a frame's whole time, in ms.")
    for machine in {taken.host: machine_line(taken) for taken in reversed(measurements)}.values():
        _tell(machine)
    for name, taken in shown:
        _tell(f"{name} ({taken.engine} ×{taken.threads}): {how(taken)}")
        for remark in remarks(taken):
            _tell(f"  {remark}")


def comparison_text(comparisons: Sequence[Comparison]) -> None:
    """Each comparison's verdict, and the ratio of the times with both intervals."""
    from edgeclf_device.bench import comparison_lines

    for made in comparisons:
        for line in comparison_lines(made):
            _tell(line)


def explain_all(found: Found, ways: Ways) -> None:
    """Why each artifact takes its time, with the first number of threads."""
    from edgeclf_device.explain import explain, explanation_lines

    for path, engine in found.runs:
        _tell("")
        for line in explanation_lines(explain(path, engine=engine, threads=ways.threads[0], options=ways.options)):
            _tell(line)


def _tell(line: str) -> None:
    Console().print(line, highlight=False, markup=False, soft_wrap=True)


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


def _print(table: Table, *, width: int = WIDTH) -> None:
    """A row is never broken: where the terminal is narrower than ``width``, or none, it runs on."""
    Console(width=max(Console().width, width)).print(table, soft_wrap=True)

"""``edgeclf calibrate``: what speaks against a run's calibration, and with ``--study`` which one does best."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeclf.cli.app import JsonFile, app
from edgeclf.cli.progress import Bars

if TYPE_CHECKING:
    from edgeclf.calibrating.examine import Examination
    from edgeclf.calibrating.outcome import Cell, Study

PLOT = "calibration-study.png"
"""In the run, where no JSON file was named to put the plot beside."""


@app.command()
def calibrate(
    run: Annotated[Path, typer.Argument(help="A run with images, as `edgeclf train` writes it.")],
    study: Annotated[bool, typer.Option("--study", help="Try methods, numbers of images and seeds.")] = False,
    bundle: Annotated[
        Path | None, typer.Option(help="An export of the run: start from its fp32 .onnx, without TensorFlow.")
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="Of a study: random, stratified, k-center, extreme; default: all.")
    ] = None,
    estimator: Annotated[
        str | None, typer.Option(help="Of a study: min-max (default), moving-average, percentile, entropy, mse.")
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Say what speaks against the calibration of a run, or with --study which one does best."""
    from edgeclf.calibrating.examine import examine
    from edgeclf.calibrating.study import study as make_study
    from edgeclf.calibrating.study_plot import write_plot
    from edgeclf_calibration.ranges import MinMax
    from edgeclf_calibration.selection import METHODS
    from edgeclf_device.errors import UsageError

    if not study and (method or estimator):
        raise UsageError("--method and --estimator are options of a study; give --study too, or leave them out.")
    if not study:
        with Bars() as progress:
            examined = examine(run, bundle=bundle, progress=progress)
        _write_json(json_file, examined.to_json())
        _show_doubts(examined)
        return
    with Bars() as progress:
        made = make_study(
            run,
            bundle=bundle,
            methods=tuple(method or METHODS),
            estimator=estimator or MinMax.name,
            progress=progress,
        )
    _write_json(json_file, made.to_json())
    plot = run / PLOT if json_file is None else json_file.with_suffix(".png")
    write_plot(made, plot)
    _show_study(made)
    typer.echo(f"plot {plot}")


def _write_json(path: Path | None, value: dict[str, Any]) -> None:
    if path is not None:
        from edgeclf_device.atomic import write_text

        write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _show_doubts(examined: Examination) -> None:
    shares = ", ".join(f"{label} {count}" for label, count in examined.per_class.items())
    typer.echo(f"{examined.images} calibration images, {examined.method}, seed {examined.seed}: {shares}")
    typer.echo(examined.stability)
    for doubt in examined.doubts or ("Nothing speaks against this calibration.",):
        typer.echo(doubt)


def _show_study(made: Study) -> None:
    """The table, one row a method and number of images, and what follows from it."""
    from rich.console import Console
    from rich.table import Table

    from edgeclf.calibrating.outcome import TOLERANCE_POINTS

    table = Table("method", box=None, header_style="bold", pad_edge=False)
    for column in ("images", "accuracy", "spread", "same label", "spread", "half/all", "s", ""):
        table.add_column(column, justify="right")
    for cell in made.cells:
        table.add_row(*_row(cell), "<" if cell == made.recommended else "")
    Console().print(table)
    typer.echo(
        f"\nMeans over the seeds on {made.judged_images} {made.split} images; chosen from {made.pool_images}; "
        f"{made.estimator}; {made.engine}; {made.seconds:.0f} s in all.\n"
        f"fp32 accuracy {100 * made.reference_accuracy:.2f} %; same label: as fp32; spread: points between the best "
        f"seed and the worst;\nhalf/all: how far the ranges of half of the images differ from those of all; "
        f"s: seconds to calibrate so.\n"
    )
    for one in made.comparisons:
        typer.echo(
            f"{one.images} {one.method} against {one.random_images} random images: accuracy "
            f"{one.accuracy_points:+.2f}, same label {one.agreement_points:+.2f} points: "
            f"{'as good' if one.holds else 'not as good'} within {TOLERANCE_POINTS:g}."
        )
    typer.echo(_recommendation(made))


def _row(cell: Cell) -> tuple[str, ...]:
    return (
        cell.method,
        str(cell.images),
        f"{100 * cell.accuracy:.2f} %",
        _points(cell.accuracy_spread),
        f"{100 * cell.agreement:.2f} %",
        _points(cell.agreement_spread),
        f"{100 * cell.range_difference:.1f} %",
        f"{cell.seconds:.1f}",
    )


def _points(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.2f}"


def _recommendation(made: Study) -> str:
    means, allowed = [100 * cell.agreement for cell in made.cells], made.tolerance_points
    chosen = made.recommended
    rule = (
        f"Mean same label: {min(means):.2f} to {max(means):.2f} %; one image is {100 / made.judged_images:.2f} points. "
        f"Enough is within {allowed:.2f} of the best, with seeds at most {2 * allowed:.2f} apart.\n"
    )
    if chosen is None:
        return f"{rule}Recommended: nothing, no number of images is enough; judge by more validation images."
    smallest = ", ".join(f"{cell.images} {cell.method}" for cell in map(made.smallest, made.methods) if cell)
    once = "" if chosen.trials > 1 else " (tried once: no seed changes it, and its spread is not known)"
    return f"{rule}The fewest that are enough: {smallest}.\nRecommended: {chosen.images} images, {chosen.method}{once}."

"""``edgeclf calibrate``: what speaks against a run's calibration, which one does best, and what each layer loses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeclf.cli.app import JsonFile, app, require_with, write_json
from edgeclf.cli.progress import Bars
from edgeclf_device.errors import UsageError

if TYPE_CHECKING:
    from edgeclf.calibrating.examine import Examination
    from edgeclf.calibrating.layers import LayerErrors
    from edgeclf.calibrating.outcome import Cell, Comparison, Study
    from edgeclf_calibration.sensitivity import LayerError

STUDY_PLOT = "calibration-study.png"
LAYERS_PLOT = "layers.png"
"""In the run, where no JSON file was named to put the plot beside."""

SHOWN_LAYERS = 20


@app.command()
def calibrate(
    run: Annotated[Path, typer.Argument(help="A run, as `edgeclf train` or `edgeclf fetch` writes it.")],
    study: Annotated[bool, typer.Option("--study", help="Try methods, numbers of images and seeds.")] = False,
    layers: Annotated[bool, typer.Option("--layers", help="Measure what each layer loses in int8.")] = False,
    bundle: Annotated[
        Path | None, typer.Option(help="An export of the run: start from its fp32 model, without TensorFlow.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Photos, labelled or not, instead of the run's: half calibrate, half judge.")
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="Of a study: random, stratified, k-center, extreme; default: all.")
    ] = None,
    estimator: Annotated[
        str | None, typer.Option(help="Of a study: min-max (default), moving-average, percentile, entropy, mse.")
    ] = None,
    images: Annotated[
        int | None, typer.Option(min=1, help="Of layers: how many images to measure on; default 64.")
    ] = None,
    format_: Annotated[str | None, typer.Option("--format", help="Of layers: tflite (default) or onnx.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Say what speaks against a calibration; with --study, which does best; with --layers, where int8 hurts."""
    if study and layers:
        raise UsageError("Either the study or the layers are looked at, but both were asked for; leave one out.")
    require_with("--study", study, {"--method": method, "--estimator": estimator})
    require_with("--layers", layers, {"--images": images, "--format": format_})
    if study:
        _study(run, json_file, bundle=bundle, data=data, methods=method, estimator=estimator)
    elif layers:
        _layers(run, json_file, bundle=bundle, data=data, images=images, container=format_)
    else:
        _examine(run, json_file, bundle=bundle, data=data)


def _examine(run: Path, json_file: Path | None, **options: Any) -> None:
    from edgeclf.calibrating.examine import examine

    with Bars() as progress:
        examined = examine(run, progress=progress, **options)
    write_json(json_file, examined.to_json())
    _show_doubts(examined)


def _study(run: Path, json_file: Path | None, *, estimator: str | None, **options: Any) -> None:
    from edgeclf.calibrating.study import study
    from edgeclf.calibrating.study_plot import write_plot
    from edgeclf_calibration.ranges import MinMax

    with Bars() as progress:
        made = study(run, estimator=estimator or MinMax.name, progress=progress, **options)
    write_json(json_file, made.to_json())
    plot = run / STUDY_PLOT if json_file is None else json_file.with_suffix(".png")
    write_plot(made, plot)
    _show_study(made)
    typer.echo(f"plot {plot}")


def _layers(run: Path, json_file: Path | None, *, images: int | None, **options: Any) -> None:
    from edgeclf.calibrating.layers import IMAGES, layer_errors
    from edgeclf.calibrating.layers_plot import write_layers_plot

    with Bars() as progress:
        made = layer_errors(run, images=images or IMAGES, progress=progress, **options)
    write_json(json_file, made.to_json())
    plot = run / LAYERS_PLOT if json_file is None else json_file.with_suffix(".png")
    write_layers_plot(made, plot)
    _show_layers(made)
    typer.echo(f"plot {plot}")


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

    table = Table("method", box=None, header_style="bold", pad_edge=False)
    accuracy = () if made.reference_accuracy is None else ("accuracy", "spread")
    for column in ("images", *accuracy, "same label", "spread", "half/all", "s", ""):
        table.add_column(column, justify="right")
    for cell in made.cells:
        table.add_row(*_row(cell), "<" if cell == made.recommended else "")
    Console().print(table)
    typer.echo(
        f"\nMeans over the seeds on {made.judged_images} {made.split} images; chosen from {made.pool_images}; "
        f"{made.estimator}; {made.engine}; {made.seconds:.0f} s in all.\n"
        f"fp32 accuracy {_percent(made.reference_accuracy)}; same label: as fp32; spread: points between the best "
        f"seed and the worst;\nhalf/all: how far the ranges of half of the images differ from those of all; "
        f"s: seconds to calibrate so.\n"
    )
    for one in made.comparisons:
        typer.echo(_compared(one))
    typer.echo(_recommendation(made))


def _compared(one: Comparison) -> str:
    from edgeclf.calibrating.outcome import TOLERANCE_POINTS

    accuracy = "" if one.accuracy_points is None else f"accuracy {one.accuracy_points:+.2f}, "
    return (
        f"{one.images} {one.method} against {one.random_images} random images: {accuracy}same label "
        f"{one.agreement_points:+.2f} points: {'as good' if one.holds else 'not as good'} within {TOLERANCE_POINTS:g}."
    )


def _row(cell: Cell) -> tuple[str, ...]:
    accuracy = () if cell.accuracy is None else (_percent(cell.accuracy), _points(cell.accuracy_spread))
    return (
        cell.method,
        str(cell.images),
        *accuracy,
        _percent(cell.agreement),
        _points(cell.agreement_spread),
        f"{100 * cell.range_difference:.1f} %",
        f"{cell.seconds:.1f}",
    )


def _points(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.2f}"


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{100 * share:.2f} %"


def _recommendation(made: Study) -> str:
    from edgeclf.calibrating.outcome import ONCE_IMAGES

    means, allowed = [100 * cell.agreement for cell in made.cells], made.tolerance_points
    chosen = made.recommended
    rule = (
        f"Mean same label: {min(means):.2f} to {max(means):.2f} %; one image is {100 / made.judged_images:.2f} points. "
        f"Enough are\n{made.least_images} images or more, within {allowed:.2f} of the best, with seeds at most "
        f"{2 * allowed:.2f} apart, or twice as far as with the most.\nWhat was tried once counts only if it is "
        f"{ONCE_IMAGES} images ({made.once_points:.2f} points) above the best of what was tried with several seeds.\n"
    )
    if chosen is None:
        return f"{rule}Recommended: nothing, no number of images is enough; judge by more images."
    smallest = ", ".join(f"{cell.images} {cell.method}" for cell in map(made.smallest, made.methods) if cell)
    return f"{rule}The fewest that are enough: {smallest}.\nRecommended: {chosen.images} images, {chosen.method}."


def _show_layers(made: LayerErrors) -> None:
    """The table, one row a layer, the worst first."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("layer", overflow="fold")
    table.add_column("kind", no_wrap=True)
    for column in ("work", "SQNR dB", "divergence", "changed"):
        table.add_column(column, justify="right", no_wrap=True)
    rows = list(zip(made.titles, made.shares, made.layers, strict=True))
    for title, share, one in rows[:SHOWN_LAYERS]:
        table.add_row(escape(title), one.layer.kind, f"{100 * share:.2f} %", *_measured(one))
    Console().print(table)
    more = len(rows) - SHOWN_LAYERS
    typer.echo(
        (f"and {more} more that lose less; --json writes all.\n" if more > 0 else "")
        + f"\n.{made.container}: each layer in int8 alone, all others in float; {made.calibration_images} calibration "
        f"images, {made.estimator}; measured on {made.images} {made.split} images; {made.seconds:.0f} s.\n"
        "work: share of the multiply-accumulates; SQNR: signal to quantization noise of what the layer gives;\n"
        "divergence: of the scores from fp32's (nats); changed: images that get another label than in fp32."
    )


def _measured(one: LayerError) -> tuple[str, str, str]:
    if one.refused:
        return "–", "refused", "all"
    return f"{one.sqnr_db:.1f}", f"{one.divergence_nats:.2g}", f"{100 * one.changed_labels:.1f} %"

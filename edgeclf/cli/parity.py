"""``edgeclf parity``: the same scores on every engine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeclf.cli.app import JsonFile, app
from edgeclf.cli.progress import Bars

if TYPE_CHECKING:
    from rich.table import Table

    from edgeclf.evaluation.parity import Pair, Parity


@app.command()
def parity(
    paths: Annotated[list[Path], typer.Argument(help="Artifacts or bundles; of a bundle, every artifact.")],
    run: Annotated[
        Path | None, typer.Option(help="The run they were exported from: its images, and its Keras model's scores.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Other images; default: the golden input and synthetic ones.")
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="How many images at most.")] = 32,
    tflite_runtime: Annotated[
        Path | None, typer.Option(help="The Python of an environment with tflite-runtime and NumPy 1.")
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Compare the scores of each artifact on every engine, at every setting, and with the Keras model."""
    from edgeclf.evaluation.parity import parity as compare
    from edgeclf_device.atomic import write_text
    from edgeclf_device.errors import GateError

    with Bars() as progress:
        made = compare(paths, run=run, data=data, images=images, tflite_runtime=tflite_runtime, progress=progress)
    if json_file is not None:
        write_text(json_file, json.dumps(made.to_json(), indent=2, ensure_ascii=False) + "\n")
    _show(made)
    if made.broken:
        raise GateError(
            f"All pairs must keep to their bounds, but {len(made.broken)} of {len(made.pairs)} do not; "
            "docs/reference/parity.md says what to do."
        )


def _show(made: Parity) -> None:
    """A table for each artifact and what it is compared with, then what broke a bound and what was not run."""
    from rich.console import Console

    console = Console()
    for file, images in made.images.items():
        pairs = [pair for pair in made.pairs if pair.artifact == file]
        console.print(f"{file}: {images}", highlight=False, markup=False, style="bold")
        for against in dict.fromkeys(pair.against for pair in pairs):
            console.print(_table([pair for pair in pairs if pair.against == against]))
        for pair in pairs:
            if not pair.kept:
                console.print(f"broken: {_sentence(pair)}", highlight=False, markup=False, style="red")
        for one in made.absent:
            if one.artifact == file:
                console.print(f"not run: {one.variant}: {one.reason}", highlight=False, markup=False)
        console.print()


def _table(pairs: Sequence[Pair]) -> Table:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column(f"against {pairs[0].against}", no_wrap=True)
    for column in ("max", "mean", "distance", "same label", "allowed"):
        table.add_column(column, justify="right", no_wrap=True)
    for pair in pairs:
        table.add_row(
            pair.variant,
            *(f"{value:.1e}" for value in (pair.max_error, pair.mean_error, pair.distance)),
            f"{100 * pair.agreement:.1f} %",
            f"{pair.bound.max_error:.2g} {pair.bound.distance:.2g}",
            style=None if pair.kept else "red",
        )
    return table


def _sentence(pair: Pair) -> str:
    found = pair.divergence
    begin = f"{pair.variant} against {pair.against}"
    if found is None:
        return f"{begin}: {pair.note}."
    error = "no equal tensor in the other file" if found.error is None else f"relative error {found.error:.2g}"
    return f"{begin}: first diverging layer {found.layer} ({found.kind}, {found.place} of {found.layers}; {error})."

"""``edgeclf evaluate``: accuracy of any model, and how much of it corruptions and attacks leave."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeclf.cli.app import Engine, JsonFile, app, require_with, write_json
from edgeclf.cli.progress import Bars

if TYPE_CHECKING:
    from edgeclf.data.dataset import Rejected
    from edgeclf.evaluation.robustness_result import Robustness
    from edgeclf.training.run import Run


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="A run, a .keras file, an artifact or a bundle.")],
    data: Annotated[
        Path,
        typer.Argument(help="Class folders, train, val and test folders of those, a CSV or Parquet listing, or a run."),
    ],
    split: Annotated[str | None, typer.Option(help="train, val or test; default: test, else val, else all.")] = None,
    labels: Annotated[Path | None, typer.Option(help="Of a .keras file: its labels, one a line, in UTF-8.")] = None,
    preprocess: Annotated[
        Path | None, typer.Option(help="Of a .keras file: a TOML file; see docs/how-to/export-your-own-model.md.")
    ] = None,
    engine: Engine = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads the engine may compute with.")] = None,
    robustness: Annotated[
        bool, typer.Option("--robustness", help="Judge by corrupted images, and a Keras model by attacked ones.")
    ] = False,
    images: Annotated[int | None, typer.Option(min=1, help="Of robustness: at most so many; default 500.")] = None,
    epsilon: Annotated[
        list[int] | None, typer.Option(help="Of robustness: largest change of a value, of 255; default 2, 4 and 8.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of robustness: the choice of images, corruptions, attacks; default 0.")
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Measure the accuracy of a model, on any engine; with --robustness, what harder images leave of it."""
    belonging = {"images": images, "epsilon": epsilon, "seed": seed}
    require_with("--robustness", robustness, {f"--{name}": value is not None for name, value in belonging.items()})
    options: dict[str, Any] = {
        "split": split,
        "labels": labels,
        "preprocess": preprocess,
        "engine": engine,
        "threads": threads,
    }
    if robustness:
        options |= {"epsilons" if name == "epsilon" else name: value for name, value in belonging.items() if value}
        _robustness(model, data, json_file, options)
    else:
        _accuracy(model, data, json_file, options)


def _accuracy(model: Path, data: Path, json_file: Path | None, options: dict[str, Any]) -> None:
    from edgeclf.cli.tables import evaluation_table
    from edgeclf.evaluation.evaluate import evaluate as evaluate_model

    with Bars() as progress:
        made = evaluate_model(model, data, progress=progress, **options)
    write_json(json_file, {"format": [1, 0], "evaluations": [evaluation.to_json() for evaluation in made]})
    _tell_rejected(made[0].rejected)
    evaluation_table(made)


def _robustness(model: Path, data: Path, json_file: Path | None, options: dict[str, Any]) -> None:
    from edgeclf.cli.tables import robustness_table
    from edgeclf.evaluation.robustness import robustness, run_of

    run = run_of(model, data, engine=options["engine"])
    with Bars() as progress:
        made = robustness(model, data, progress=progress, **options)
    write_json(json_file, made.to_json())
    _tell_rejected(made.rejected)
    robustness_table(made)
    if not any(one.attacks for one in made.models):
        typer.echo(
            "edgeclf: not attacked: FGSM and PGD need a gradient, which an artifact has not; name the run that it was "
            "exported from in place of the data, or evaluate that run or a .keras file.",
            err=True,
        )
    if run is not None and run.has_images:
        _keep(run, made)


def _tell_rejected(images: Sequence[Rejected]) -> None:
    for one in images:
        typer.echo(f"edgeclf: left out: {one.path}: {one.reason}", err=True)


def _keep(run: Run, made: Robustness) -> None:
    """Keep what was found in the run and renew its report; a run that can't be written is no failure of the judging."""
    from edgeclf.evaluation.robustness_result import write_robustness
    from edgeclf.report.report import write_report
    from edgeclf_device.errors import SystemStateError

    try:
        write_robustness(run, made)
        typer.echo(f"report {write_report(run)}")
    except SystemStateError as error:
        typer.echo(f"edgeclf: the robustness could not be kept in the run: {error}", err=True)

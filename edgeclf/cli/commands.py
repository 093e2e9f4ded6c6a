"""The host's own commands. Each is thin: parse, one library call, render."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeclf.cli.app import app
from edgeclf.cli.progress import Bars

Data = Annotated[
    Path, typer.Argument(help="Class folders, train, val and test folders of those, or a CSV or Parquet listing.")
]
Out = Annotated[Path, typer.Option(help="The folder to write; it must be new or empty.")]


@app.command()
def train(
    data: Data,
    out: Out,
    backbone: Annotated[str | None, typer.Option(help="The network; see docs/reference/backbones.md.")] = None,
    model: Annotated[str | None, typer.Option(help="A function of yours that builds it: module:function.")] = None,
    weights: Annotated[str | None, typer.Option(help="imagenet, none, or a file of weights.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Total over all phases.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Side of the square the model sees, in pixels.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of the split, the weights, the order of images, the augmentation.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file; see docs/reference/configuration.md.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="One key of the configuration: a.b=value.")] = None,
    qat: Annotated[
        bool, typer.Option("--qat", help="End with quantization-aware training, so that int8 keeps the labels.")
    ] = False,
    adversarial: Annotated[
        str | None, typer.Option(help="Train on attacked images, so that attacks do less: fgsm or pgd.")
    ] = None,
    unlabeled: Annotated[
        Path | None, typer.Option(help="A folder of further images, without labels, to learn from too.")
    ] = None,
    teacher: Annotated[
        Path | None, typer.Option(help="A run, a .keras file or an artifact whose scores are learnt too.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the interrupted training of OUT.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse unreadable images, not leave them out.")] = False,
) -> None:
    """Train a classifier on a folder of labelled images."""
    from edgeclf.report.report import write_report
    from edgeclf.training.config import load_config
    from edgeclf.training.train import train as train_model
    from edgeclf_device.errors import UsageError

    if backbone and model:
        raise UsageError(f"Give --backbone or --model, but {backbone} and {model} were given.")
    if model and ":" not in model:
        raise UsageError(f"--model must be module:function, but {model!r} was given; for a built-in, use --backbone.")
    options = {
        "backbone": backbone or model,
        "weights": weights,
        "train.epochs": epochs,
        "image_size": image_size,
        "seed": seed,
        "train.qat": qat or None,
        "adversarial.method": adversarial,
        "semi.unlabeled": None if unlabeled is None else str(unlabeled),
        "distill.teacher": None if teacher is None else str(teacher),
    }
    named = [f"{key}={json.dumps(value)}" for key, value in options.items() if value is not None]
    resolved = load_config(config, [*(set_ or []), *named, f"data={json.dumps(str(data))}"])
    with Bars() as progress:
        run = train_model(resolved, out=out, strict=strict, resume=resume, tell=_tell, progress=progress)
    for rejected in run.metrics["rejected"]:
        typer.echo(f"edgeclf: left out: {rejected['path']}: {rejected['reason']}", err=True)
    report = write_report(run)
    part, figures = run.judged
    typer.echo(f"{part} accuracy {figures['accuracy']:.4f} on {figures['images']} images; run {out}; report {report}")


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="efficientnet_lite0, efficientnet_lite1 or efficientnet_lite2.")],
    out: Out,
) -> None:
    """Write a stock ImageNet classifier with its 1000 labels as a run, ready to export."""
    from edgeclf.stock import fetch as fetch_stock

    with Bars() as progress:
        run = fetch_stock(name, out=out, progress=progress)
    typer.echo(f"{len(run.labels)} labels, {run.spec.height}×{run.spec.width} pixels; run {out}")


@app.command()
def export(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|FILE",
            help="A run, as `edgeclf train` or `edgeclf fetch` writes it, or a .keras, SavedModel, .tflite or .onnx.",
        ),
    ],
    out: Out,
    labels: Annotated[Path | None, typer.Option(help="Of a FILE: its labels, one a line, in UTF-8.")] = None,
    preprocess: Annotated[
        Path | None, typer.Option(help="Of a FILE: a TOML file; see docs/how-to/export-your-own-model.md.")
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="Images to calibrate with, and to judge by where there are no others.")
    ] = None,
    format_: Annotated[
        list[str] | None, typer.Option("--format", help="tflite or onnx; default: all that can be made.")
    ] = None,
    scheme: Annotated[
        list[str] | None, typer.Option(help="fp32, fp16, w8a32, w8a8 or w8a16; default: fp32 and w8a8.")
    ] = None,
    max_drop: Annotated[float, typer.Option(help="Refuse an artifact that loses more points of accuracy.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of the choice of calibration images.")] = 0,
    calibration_images: Annotated[int, typer.Option(min=1, help="How many images to calibrate with.")] = 200,
    calibration_method: Annotated[
        str, typer.Option(help="How they are chosen: stratified, random, k-center or extreme.")
    ] = "stratified",
    estimator: Annotated[
        str | None, typer.Option(help="Of w8a8: min-max (default), moving-average, percentile, entropy or mse.")
    ] = None,
    c_header: Annotated[
        bool, typer.Option("--c-header", help="Write NAME-w8a8.h too, for TensorFlow Lite Micro.")
    ] = False,
    recover: Annotated[
        bool, typer.Option("--recover", help="Try every way of quantizing to w8a8, and keep what measurably helps.")
    ] = False,
    target: Annotated[
        str | None, typer.Option(help="What w8a8 .onnx is to run on: pi5, pi4, jetson, x86-vnni or x86 (default).")
    ] = None,
    dynamic_batch: Annotated[
        bool, typer.Option("--dynamic-batch", help="Let .onnx files take any number of images at once.")
    ] = False,
) -> None:
    """Quantize a run, or a model of yours, to verified artifacts, each measured before it is let out."""
    from edgeclf.cli.tables import artifact_table
    from edgeclf.exporting.export import export as export_run
    from edgeclf.exporting.file_subject import export_file, is_model
    from edgeclf.exporting.measure import ungated
    from edgeclf.report.measured import measured
    from edgeclf.report.report import write_report
    from edgeclf.training.run import read_run
    from edgeclf_device.errors import SystemStateError, UsageError

    options: dict[str, Any] = {
        "calibration": calibration,
        "formats": format_,
        "schemes": scheme,
        "max_drop": max_drop,
        "seed": seed,
        "calibration_images": calibration_images,
        "calibration_method": calibration_method,
        **({} if estimator is None else {"estimator": estimator}),
        "c_header": c_header,
        "recover": recover,
        "target": target,
        "dynamic_batch": dynamic_batch,
        "tell": _tell_doubt,
    }
    opened = None
    with Bars() as progress:
        if labels and preprocess:
            made = export_file(run, out, labels=labels, preprocess=preprocess, progress=progress, **options)
        elif labels or preprocess or is_model(run):
            raise UsageError(
                f"A model of yours needs --labels and --preprocess, and a run neither, but {run} was given with "
                f"{_names(labels=labels, preprocess=preprocess)}; add what is missing, or leave both out for a run."
            )
        else:
            made = export_run(run, out, progress=progress, **options)
            opened = read_run(run)
        rows, latency = measured(opened, made, progress=progress)
    artifact_table(rows, latency)
    if sentence := ungated(made, max_drop):
        typer.echo(f"edgeclf: {sentence}", err=True)
    if opened is None or not opened.has_images:
        typer.echo(f"bundle {out}")
        return
    try:
        report = write_report(opened, artifacts=rows, latency_conditions=latency)
    except SystemStateError as error:
        typer.echo(
            f"edgeclf: the bundle {out} is complete, but the run's report could not be renewed: {error}", err=True
        )
        return
    typer.echo(f"bundle {out}; report {report}")


@app.command()
def quickstart(
    out: Annotated[Path, typer.Option(help="New, empty, or an earlier quickstart's folder.")] = Path("quickstart"),
    seed: Annotated[int, typer.Option(help="Of the split and the training.")] = 0,
) -> None:
    """Go the whole road on real data: train, export, verify, bench, classify."""
    from edgeclf.cli.tables import quickstart_summary
    from edgeclf.solar.images import NOTICE
    from edgeclf.solar.quickstart import quickstart as go

    typer.echo(NOTICE + "\n", err=True)
    with Bars() as progress:
        made = go(out, seed=seed, progress=progress)
    quickstart_summary(made)


def _tell(line: str) -> None:
    typer.echo(line, err=True)


def _tell_doubt(sentence: str) -> None:
    typer.echo(f"edgeclf: {sentence}", err=True)


def _names(**given: object) -> str:
    """The options among ``given`` that were given."""
    return " and ".join(f"--{name}" for name, value in given.items() if value is not None) or "none"

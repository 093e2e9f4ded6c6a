"""``edgeclf bench``: measure artifacts, or compare them in turn; keep limits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeclf.cli.app import Engine, JsonFile, app
from edgeclf.cli.progress import Bars


@app.command()
def bench(
    paths: Annotated[
        list[Path],
        typer.Argument(help="Artifacts or bundles (every artifact of these); two or more artifacts are compared."),
    ],
    source: Annotated[str | None, typer.Option(help="Frames to measure with; default: a synthetic one.")] = None,
    engine: Engine = None,
    threads: Annotated[list[int] | None, typer.Option(help="Threads to compute with; may be repeated.")] = None,
    provider: Annotated[
        str | None, typer.Option(help="What ONNX Runtime computes with: cpu, cuda, tensorrt, …")
    ] = None,
    delegate: Annotated[str | None, typer.Option(help="A library that runs .tflite on other hardware.")] = None,
    seconds: Annotated[
        float, typer.Option(help="Samples of each artifact, at most; fewer where the median is known.")
    ] = 10.0,
    offline: Annotated[bool, typer.Option("--offline", help="Give all frames at once: throughput.")] = False,
    rate: Annotated[float | None, typer.Option(help="Let so many frames a second come, late or not.")] = None,
    cold_start: Annotated[bool, typer.Option(help="Start new processes for the time to the first label.")] = True,
    json_file: JsonFile = None,
    compare: Annotated[Path | None, typer.Option(help="Compare with a file of bench --json.")] = None,
    max_p90_ms: Annotated[float | None, typer.Option(help="Exit 6 where p90 is higher.")] = None,
    max_regression: Annotated[
        float | None, typer.Option(help="Exit 6 where an artifact is surely slower by more percent.")
    ] = None,
) -> None:
    """Measure each stage of each artifact; compare two or more in turn: faster, slower or undecided."""
    from edgeclf.cli.tables import bench_table, comparison_table
    from edgeclf_device import bench as device
    from edgeclf_device.choice import runnable
    from edgeclf_device.errors import UsageError

    if offline and rate is not None:
        raise UsageError(f"Give --offline or --rate, but both were given (--rate {rate:g}).")
    frames, description = (None, "") if source is None else device.load_frames(source)
    counts = threads or [1]
    earlier = [] if compare is None else device.read_measurements(compare)
    for path in paths:
        for file in runnable(path, engine=engine)[1]:
            typer.echo(f"edgeclf: skipped, no engine to run it: {file}", err=True)
    files = [file for path in paths for file in runnable(path, engine=engine)[0]]
    in_turn = len(paths) > 1 and all(path.is_file() for path in paths) and not offline and rate is None
    options = {name: value for name, value in (("provider", provider), ("delegate", delegate)) if value is not None}
    with Bars() as progress:
        if in_turn:
            comparisons = [
                device.compare(
                    files[0],
                    other,
                    engine=engine,
                    threads=count,
                    options=options,
                    frames=frames,
                    description=description,
                    seconds=2 * seconds,
                    progress=progress,
                )
                for count in counts
                for other in files[1:]
            ]
            measurements = [taken for made in comparisons for taken in (made.base, made.other)]
        else:
            measurements = [
                device.bench(
                    file,
                    engine=engine,
                    threads=count,
                    options=options,
                    frames=frames,
                    description=description,
                    scenario="offline" if offline else "single-stream" if rate is None else "fixed-rate",
                    rate_fps=rate,
                    plan=device.Plan(seconds=seconds, cold_starts=device.COLD_STARTS if cold_start else 0),
                    progress=progress,
                )
                for file in files
                for count in counts
            ]
            comparisons = []
    if compare is not None:
        comparisons += [device.compare_with(earlier, taken) for taken in measurements]
    if json_file is not None:
        device.write_measurements(json_file, measurements, comparisons)
    bench_table(measurements)
    if comparisons:
        comparison_table(comparisons)
    device.gate(measurements, comparisons, max_p90_ms=max_p90_ms, max_regression_percent=max_regression)

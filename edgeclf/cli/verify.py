"""``edgeclf verify``: as on the device, and where the run is at hand, against the run too."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from edgeclf.cli.app import Engine, app
from edgeclf.cli.progress import Bars


@app.command()
def verify(
    path: Annotated[Path, typer.Argument(help="An artifact or a bundle.")],
    run: Annotated[
        Path | None, typer.Option(help="The run it was exported from: labels, preprocessing and scores are compared.")
    ] = None,
    engine: Engine = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Check every digest of an artifact or bundle, run its golden input, and name what differs from its run."""
    from edgeclf_device.errors import ModelError
    from edgeclf_device.text import verification_lines
    from edgeclf_device.verify import verify as verify_path

    with Bars() as progress:
        made = verify_path(path, engine=engine, progress=progress)
        if run is not None:
            from edgeclf.evaluation.faults import checks_against

            made = dataclasses.replace(made, checks=(*made.checks, *checks_against(path, run, progress=progress)))
    lines = [json.dumps(made.to_json(), indent=2, ensure_ascii=False)] if as_json else verification_lines(made)
    for line in lines:
        typer.echo(line)
    if not made.ok:
        raise typer.Exit(ModelError.exit_code)

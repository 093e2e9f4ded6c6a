"""The commands that a device has too: they are handed to ``edgeclf_device.cli`` as they are, so that both are one."""

from __future__ import annotations

from typing import Any

import typer

from edgeclf.cli.app import app

_AS_ON_THE_DEVICE: dict[str, Any] = {
    "add_help_option": False,
    "context_settings": {"allow_extra_args": True, "ignore_unknown_options": True},
}


def _hand_over(context: typer.Context) -> None:
    from edgeclf_device.cli import main

    raise typer.Exit(main([str(context.info_name), *context.args], program="edgeclf"))


@app.command(**_AS_ON_THE_DEVICE)
def classify(context: typer.Context) -> None:
    """Classify the frames of a folder, an image or a video with an artifact or bundle."""
    _hand_over(context)


@app.command(**_AS_ON_THE_DEVICE)
def inspect(context: typer.Context) -> None:
    """Print what an artifact or bundle says of itself; needs no engine."""
    _hand_over(context)


@app.command(**_AS_ON_THE_DEVICE)
def doctor(context: typer.Context) -> None:
    """Examine this machine and say what to do."""
    _hand_over(context)

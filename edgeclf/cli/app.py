"""The Typer application itself: how errors become exit codes, and the options that several commands share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from edgeclf import __version__
from edgeclf_device.errors import EdgeclfError, UsageError


class Commands(typer.core.TyperGroup):
    """Runs a command and turns a deliberate error into one sentence on stderr and its exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; see the exit codes in docs/reference/command-line.md."""
        try:
            return super().invoke(ctx)
        except EdgeclfError as error:
            typer.echo(f"edgeclf: {error}", err=True)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt:
            typer.echo(
                "edgeclf: interrupted; no half-written run or bundle was left behind, and a training's checkpoint is "
                "kept for --resume.",
                err=True,
            )
            raise


app = typer.Typer(
    cls=Commands,
    name="edgeclf",
    help="A folder of labelled images becomes a verified, quantized, self-describing classifier for edge devices.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

JsonFile = Annotated[Path | None, typer.Option("--json", help="Also write the result to this file as JSON.")]
Engine = Annotated[str | None, typer.Option(help="litert or onnxruntime; by default the one of the file's kind.")]


def write_json(path: Path | None, value: dict[str, Any]) -> None:
    """Write the ``value`` of a ``JsonFile`` where one was named."""
    if path is not None:
        from edgeclf_device.atomic import write_text

        write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def require_with(option: str, given: bool, belonging: Mapping[str, object]) -> None:  # noqa: FBT001 - as it came
    """Refuse what belongs to an option that was not given."""
    lonely = [name for name, value in belonging.items() if value]
    if lonely and not given:
        raise UsageError(f"Without {option} there is no {' and '.join(lonely)}; give {option} too, or leave that out.")


def _version(wanted: bool) -> None:  # noqa: FBT001 - a callback of Typer
    if wanted:
        typer.echo(f"edgeclf {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Options before the command."""

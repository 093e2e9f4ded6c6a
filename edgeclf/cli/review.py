"""``edgeclf review``: a person sorts images into classes."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeclf.cli.app import app

if TYPE_CHECKING:
    from edgeclf.reviewing.session import Review


@app.command()
def review(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Images, for example what --keep-hard kept.")],
    out: Annotated[Path, typer.Option(help="Class folders to sort into, as train takes them; new or not.")],
    labels: Annotated[Path | None, typer.Option(help="Further classes, one a line, in UTF-8.")] = None,
    model: Annotated[
        Path | None, typer.Option(help="An artifact or bundle: its labels, and what it says of each image.")
    ] = None,
    serve: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where the page is.")] = "127.0.0.1:8081",
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Let other machines use the page; needs a token.")
    ] = False,
    token_file: Annotated[
        Path | None, typer.Option(help="Holds the page's token (default: $EDGECLF_TOKEN; auto makes one).")
    ] = None,
) -> None:
    """Sort images into classes on a page in your browser; what is decided is kept at once. Ctrl-C ends it."""
    from edgeclf.reviewing.review import review as open_review
    from edgeclf_device.cli.parsed import token_given

    token = token_given(token_file)
    with open_review(
        folder, out=out, labels=labels, model=model, address=serve, allow_remote=allow_remote, token=token
    ) as page:
        shown = page.link if token == "auto" else page.url  # noqa: S105 - the word, not a secret
        try:
            typer.echo(f"review page: {shown} (Ctrl-C ends it; what is decided is kept)", err=True)
            threading.Event().wait()
        except KeyboardInterrupt:
            typer.echo(_summary(page.review, out))


def _summary(made: Review, out: Path) -> str:
    state = made.state()
    unreadable = f", {state['unreadable']} can't be read" if state["unreadable"] else ""
    return f"{state['decided']} of {state['total']} decided, {state['left']} left{unreadable}; train with {out}"

"""``classify``: frames in, decisions out, to everyone who wants to hear of them."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edgeclf_device import text
from edgeclf_device.classifier import Classifier
from edgeclf_device.cli.parsed import options_given, token_given
from edgeclf_device.decisions import parse_rule
from edgeclf_device.errors import DataError, SystemStateError, UsageError
from edgeclf_device.event_log import EventLog, event_json
from edgeclf_device.hard_frames import Limits
from edgeclf_device.notify import Watchdog, notify
from edgeclf_device.sources import Images, Note, Source, open_source
from edgeclf_device.streaming import Event, stream

if TYPE_CHECKING:
    from edgeclf_device.keeping import KeepHard
    from edgeclf_device.web import Page

LOOK_S = 0.25
"""How often it is asked for news while frames are waited for."""


class Noting(Protocol):
    """What has notes for people."""

    def take_notes(self) -> list[Note]:
        """What there was to say since the last call."""


class Terminated(BaseException):
    """SIGTERM: leave every ``with`` at once. No error, so nothing that catches those keeps it."""


def classify(options: argparse.Namespace) -> int:
    """``classify``: until the source ends, or SIGTERM, which is no failure."""
    rule = None if options.decide is None else parse_rule(options.decide)
    hooks = list(_hooks(options))  # a wrong one is said before model and camera take their seconds
    limits = _limits(options)
    log: EventLog | None = None
    keeper: KeepHard | None = None
    try:
        with _terminable(), ExitStack() as stack:
            source = open_source(options.source)
            classifier = stack.enter_context(_classifier(options))
            stack.enter_context(source)  # after the model: its first frame must not wait for that
            keeper = _keeper(options, limits, classifier, source, stack)
            page = _page(options, classifier, source, keeper, stack)
            log = _log(options, stack)
            hearing, noting = _hearers(options, log, hooks, stack)
            if keeper is not None:
                hearing.append(keeper)
                noting.append(keeper)
            stack.enter_context(_told([source, *noting], source, page))
            notify("READY=1", f"STATUS={source.description}")
            watchdog = Watchdog()
            done = 0
            for event in stream(classifier, source, rule=rule, max_frames=options.max_frames):
                for hear in hearing:
                    hear(event)
                if page is not None:
                    page.publish(event, source.status())
                watchdog.beat()
                done += 1
            for rejected in source.rejected:
                print(f"not read: {rejected.reason}", file=sys.stderr)
            if not done:
                _explain_silence(source, classifier)
    except Terminated:
        notify("STOPPING=1")
    if log is not None and log.lost:
        raise SystemStateError(f"{log.path} lacks {log.lost} events that could not be written; free space.")
    if keeper is not None and keeper.lost:
        raise SystemStateError(f"{keeper.folder} lacks {keeper.lost} hard frames that could not be kept; free space.")
    return 0


def _explain_silence(source: Source, classifier: Classifier) -> None:
    """Say why a source that has ended led to no decision; an empty one is no failure."""
    if source.rejected:
        raise DataError(f"Not one frame of {source.description} could be read; see the lines above.")
    if (clip := classifier.clip) is not None:
        raise DataError(
            f"A decision needs {clip.window} frames at {clip.fps:g} a second, {clip.seconds:.2f} s in all, but "
            f"{source.description} ended before that; give a longer video."
        )


def _log(options: argparse.Namespace, stack: ExitStack) -> EventLog | None:
    if options.json_lines in (None, "-"):
        return None
    return stack.enter_context(EventLog(Path(options.json_lines)))


def _limits(options: argparse.Namespace) -> Limits | None:
    if options.keep_hard is None:
        return None
    return Limits(frames=options.keep_frames, size_bytes=options.keep_mib << 20, unsure=options.keep_unsure)


def _keeper(
    options: argparse.Namespace, limits: Limits | None, classifier: Classifier, source: Source, stack: ExitStack
) -> KeepHard | None:
    if limits is None:
        return None
    from edgeclf_device.keeping import KeepHard

    if classifier.clip is not None:
        raise UsageError(
            f"--keep-hard keeps single frames to be labelled, but {classifier.path.name} is unsure of windows of "
            f"{classifier.clip.window} frames; leave it out, or record the video."
        )
    if isinstance(source, Images):  # each is a moment of its own
        limits = replace(limits, apart_frames=1)
    keeper = KeepHard(
        options.keep_hard,
        artifact=classifier.artifact.digest,
        source=source.description,
        measure=options.keep_measure,
        limits=limits,
    )
    print(
        f"hard frames: at most {limits.frames} and {options.keep_mib} MiB of what the camera sees are kept in "
        f"{keeper.folder}; nothing sends them anywhere",
        file=sys.stderr,
        flush=True,
    )
    return stack.enter_context(keeper)


@contextmanager
def _terminable() -> Iterator[None]:
    """Within it SIGTERM raises ``Terminated``, once: a second one must not interrupt the leaving."""

    def stop(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_IGN)
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _classifier(options: argparse.Namespace) -> Classifier:
    return Classifier.open(
        options.path,
        engine=options.engine,
        threads=options.threads,
        options=options_given(options),
        allow=options.allow,
    )


def _hearers(
    options: argparse.Namespace, log: EventLog | None, hooks: Iterable[Any], stack: ExitStack
) -> tuple[list[Callable[[Event], object]], list[Noting]]:
    """(what is called with every event, which of them have notes)."""
    hearing: list[Callable[[Event], object]] = []
    noting: list[Any] = []
    if log is not None:
        hearing.append(lambda event: log.write(event_json(event, options.top)))
        noting.append(log)
    if options.json_lines == "-":
        hearing.append(lambda event: _print_line(json.dumps(event_json(event, options.top), ensure_ascii=False)))
    else:
        hearing.append(lambda event: _print_line(text.event_line(event, options.top)))
    for hook in hooks:
        hearing.append(stack.enter_context(hook))
        noting.append(hook)
    return hearing, noting


def _hooks(options: argparse.Namespace) -> Iterator[Any]:
    if options.on_change is not None:
        from edgeclf_device.hooks import CommandHook, parse_command

        yield CommandHook(parse_command(options.on_change))
    if options.mqtt is not None:
        from edgeclf_device.mqtt import open_mqtt

        yield open_mqtt(options.mqtt)


def _page(
    options: argparse.Namespace, classifier: Classifier, source: Source, keeper: KeepHard | None, stack: ExitStack
) -> Page | None:
    if options.serve is None:
        return None
    from edgeclf_device.web import facts_of, serve

    token = token_given(options.token_file)
    facts = facts_of(classifier, source.description)
    page = stack.enter_context(
        serve(options.serve, facts=facts, allow_remote=options.allow_remote, token=token, keeping=keeper)
    )
    shown = page.link if token == "auto" else page.url  # noqa: S105 - the word, not a secret
    print(f"live page: {shown}", file=sys.stderr, flush=True)
    return page


@contextmanager
def _told(noting: Iterable[Noting], source: Source, page: Page | None) -> Iterator[None]:
    """Within it notes reach stderr, the page and systemd, also while the loop waits for a stalled camera."""
    ended = threading.Event()

    def tell() -> None:
        notes = [note for one in noting for note in one.take_notes()]
        for note in notes:
            print(f"{note.level}: {note.text}", file=sys.stderr, flush=True)
            notify(f"STATUS={note.text}")
        if page is not None:
            page.report(source.status(), notes)

    def look() -> None:
        while not ended.wait(LOOK_S):
            tell()

    thread = threading.Thread(target=look, name="notes", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        tell()


def _print_line(line: str) -> None:
    print(line, flush=True)

"""What is to happen when the decision changes: a program is run, or (see ``mqtt``) a message is published.

A hook is called with every event and acts on those whose decision changed. Inference never waits for it: a thread of
its own does the work. What fails is not raised but noted: a lamp that is switched off must not end the classification.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic_ns
from types import TracebackType
from typing import Protocol

from edgeclf_device.errors import UsageError, first_line
from edgeclf_device.event_log import event_json
from edgeclf_device.sources import Level, Note
from edgeclf_device.streaming import Event

WAITING = 8
"""Changes that may wait for a slow program or broker; of more, the oldest are left out."""
TIMEOUT_S = 10.0
GRACE_S = 0.25
"""How long a hook that has to end at once is waited for."""
MAX_NOTES = 100
"""Notes kept for ``take_notes``; of more, the oldest are lost."""
TOP = 3
"""Labels with their scores in what a hook is given."""


class Hook(Protocol):
    """Acts on changed decisions. A context manager; an exception that leaves it is not made to wait for the hook."""

    def __call__(self, event: Event) -> None:
        """To be called with every event; acts where the decision changed. Returns at once and never fails."""

    def take_notes(self) -> list[Note]:
        """What there was to say since the last call, the oldest first; from any thread."""

    def close(self, *, finish: bool = True) -> None:
        """End it: when it is done with what waits; where ``finish`` is false, in about ``GRACE_S`` seconds."""

    def __enter__(self) -> Hook: ...

    def __exit__(self, *exception: object) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Change:
    """A changed decision without its frame, so that what waits takes no memory: label, score, and the event's JSON."""

    label: str
    score: str
    line: str


class Changes:
    """Hands changes to ``deliver`` one after the other, in a thread of its own; of too many that wait, the newest.

    Args:
        name: of the hook, for notes.
        deliver: does the work; may take its time.
        abandon: has ``deliver`` return soon, now and from now on.
    """

    def __init__(self, name: str, deliver: Callable[[Change], None], abandon: Callable[[], None]) -> None:
        self._name = name
        self._deliver = deliver
        self._abandon = abandon
        self._waiting: deque[Change] = deque()
        self._notes: deque[Note] = deque(maxlen=MAX_NOTES)
        self._news = threading.Condition()
        self._left_out = 0
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="hook", daemon=True)
        self._thread.start()

    def put(self, event: Event) -> None:
        """Remember the event for ``deliver`` where its decision changed."""
        if not event.decision.changed:
            return
        decision, line = event.decision, json.dumps(event_json(event, TOP), ensure_ascii=False)
        with self._news:
            if len(self._waiting) == WAITING:
                self._waiting.popleft()
                self._left_out += 1
                if self._left_out == 1:
                    self.note("warning", f"{self._name} is too slow: only the last {WAITING} changes are kept for it.")
            self._waiting.append(Change(label=decision.label or "", score=f"{decision.score:.6g}", line=line))
            self._news.notify()

    def note(self, level: Level, text: str) -> None:
        """Add a note; from any thread."""
        with self._news:
            self._notes.append(Note(at_ns=monotonic_ns(), level=level, text=text))

    def take_notes(self) -> list[Note]:
        """See ``Hook``."""
        with self._news:
            notes = list(self._notes)
            self._notes.clear()
            return notes

    def close(self, timeout_s: float | None) -> None:
        """Wait until nothing waits any more, but not longer than this; then abandon what is left."""
        with self._news:
            self._closing = True
            self._news.notify()
        try:
            self._thread.join(timeout_s)
        finally:  # after Ctrl-C too
            with self._news:
                self._waiting.clear()
            self._abandon()
            self._thread.join(GRACE_S)

    def _work(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    return
                change = self._waiting.popleft()
                if self._left_out and not self._waiting:
                    self.note("info", f"{self._name} is keeping up again; it never got {self._left_out} changes.")
                    self._left_out = 0
            self._deliver(change)


class CommandHook:
    """Runs a program at each change of the decision, one run after the other, without a shell.

    The program gets the event as one line of JSON on its stdin, and ``EDGECLF_LABEL`` (empty for no label) and
    ``EDGECLF_SCORE`` in its environment. What it prints goes to stderr.

    Args:
        argv: the program and its arguments, in which ``{label}`` and ``{score}`` are filled in.
        timeout_s: when it runs longer, it is killed with all that it started.

    Raises:
        UsageError: no program, or no time to run it.
    """

    def __init__(self, argv: Sequence[str], *, timeout_s: float = TIMEOUT_S) -> None:
        if not argv or timeout_s <= 0:
            raise UsageError(f"A hook needs a program and a time limit above 0, but got {argv!r} and {timeout_s} s.")
        self._argv = tuple(argv)
        self._timeout_s = timeout_s
        self._child: subprocess.Popen[bytes] | None = None
        self._abandoned = False
        self._starting = threading.Lock()
        self._name = f"The hook {shlex.join(argv)}"
        self._changes = Changes(self._name, self._deliver, self._abandon)

    def __call__(self, event: Event) -> None:
        """See ``Hook``."""
        self._changes.put(event)

    def take_notes(self) -> list[Note]:
        """See ``Hook``."""
        return self._changes.take_notes()

    def close(self, *, finish: bool = True) -> None:
        """See ``Hook``. A run that may not finish is killed."""
        self._changes.close(None if finish else GRACE_S)

    def __enter__(self) -> CommandHook:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(finish=error is None)

    def _deliver(self, change: Change) -> None:
        problem = self._run(change)
        if problem:
            self._changes.note("warning", f"{self._name} {problem}.")

    def _run(self, change: Change) -> str:
        """Run the program once: what went wrong, or nothing."""
        argv = [part.replace("{label}", change.label).replace("{score}", change.score) for part in self._argv]
        environment = {**os.environ, "EDGECLF_LABEL": change.label, "EDGECLF_SCORE": change.score}
        try:
            with self._starting:  # _abandon comes before, and prevents it, or after, and sees the child
                if self._abandoned:
                    return ""
                self._child = child = subprocess.Popen(
                    argv, stdin=subprocess.PIPE, stdout=2, env=environment, start_new_session=True
                )
        except (OSError, ValueError) as error:
            return f"can't be started: {first_line(error)}"
        try:
            child.communicate((change.line + "\n").encode("utf-8", "backslashreplace"), timeout=self._timeout_s)
        except subprocess.TimeoutExpired:
            _kill(child)
            return f"ran for more than {self._timeout_s:g} s and was killed"
        finally:
            with self._starting:
                self._child = None
        if child.returncode < 0:
            return f"was ended by {signal.Signals(-child.returncode).name}"
        return f"ended with exit code {child.returncode}" if child.returncode else ""

    def _abandon(self) -> None:
        with self._starting:
            self._abandoned = True
            if self._child is not None:
                _kill(self._child)


def _kill(child: subprocess.Popen[bytes]) -> None:
    """Kill a child that leads a session of its own, and everyone in it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):  # one of another user's can't be killed
        child.wait(GRACE_S)


def parse_command(text: str) -> tuple[str, ...]:
    """The program and its arguments of ``--on-change``: split as a shell would, but no shell runs them.

    Raises:
        UsageError: nothing is in it, a quotation mark is left open, or no such program is found.
    """
    try:
        argv = tuple(shlex.split(text))
    except ValueError as error:
        raise UsageError(
            f"--on-change takes a program and its arguments, but {text!r} can't be read: {error}."
        ) from None
    if not argv or shutil.which(argv[0]) is None:
        raise UsageError(
            f"--on-change takes a program that can be run, and its arguments, but {text!r} names none; "
            "check its path, and whether it is executable."
        )
    return argv

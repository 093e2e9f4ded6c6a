"""Steady decisions from unsteady frames: windows over the last frames and a hysteresis, as pure functions of states.

A rule is made of at most one window (``MovingAverage`` or ``MajorityVote``) and at most one ``Hysteresis`` behind it.
``step`` takes what was said of one frame and gives the next state and the decision; nothing else is remembered.

A frame whose result is not accepted (its score is below the model's reject threshold) says "no label". So does every
frame that is missing while a window fills: a label is decided on when it has earned it, not because nothing else came.

A plain window forgets a frame after a stated number of frames and then entirely; an exponential average never does, so
that how long an object that has left still counts could only be said as a half-life.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeclf_device.classifier import Result
from edgeclf_device.errors import UsageError
from edgeclf_device.ranking import Places, best

MAX_GAP_MS = 2000.0
"""Twice as long as a camera may give nothing new before it counts as stalled."""


@dataclass(frozen=True, kw_only=True)
class MovingAverage:
    """The label of the highest mean score over the last ``frames`` frames; of equal ones the first in order.

    Scores of frames without a label count as 0. There is a label while more than half of the frames have one.
    """

    frames: int

    def __post_init__(self) -> None:
        _check_frames(self.frames)


@dataclass(frozen=True, kw_only=True)
class MajorityVote:
    """What most of the last ``frames`` frames say, "no label" included; its score is its share of them.

    Of equal numbers of votes wins what was decided before, else the first label in order, "no label" last.
    """

    frames: int

    def __post_init__(self) -> None:
        _check_frames(self.frames)


@dataclass(frozen=True, kw_only=True)
class Hysteresis:
    """A label is taken when its score is at least ``enter`` and kept until its score is below ``leave``.

    While a label is kept no other is taken, however high its score.
    """

    enter: float
    leave: float

    def __post_init__(self) -> None:
        if not 0 <= self.leave <= self.enter <= 1:
            raise UsageError(
                "A hysteresis takes a label at a score of ENTER and gives it up below LEAVE, with "
                f"0 <= LEAVE <= ENTER <= 1, but ENTER is {self.enter:g} and LEAVE {self.leave:g}."
            )


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How frames become decisions. Without window and hysteresis each frame decides for itself.

    Attributes:
        window: what a number of frames say together.
        hysteresis: when a label is taken and given up; it sees the scores of the window.
        max_gap_ms: when two frames are further apart than this, what was before them is forgotten.
    """

    window: MovingAverage | MajorityVote | None = None
    hysteresis: Hysteresis | None = None
    max_gap_ms: float = MAX_GAP_MS

    def __post_init__(self) -> None:
        if not 0 < self.max_gap_ms < math.inf:
            raise UsageError(f"The largest gap between frames must be above 0, but it is {self.max_gap_ms:g} ms.")


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What is to be believed at a frame.

    Attributes:
        label: None: no label.
        score: of the label, in the window where the rule has one; without a label of the one that came nearest.
        changed: whether ``label`` is another than before this frame; before the first there was none.
        since_ns: when this label was decided on, by the clock of the frames; a gap begins anew.
    """

    label: str | None
    score: float
    changed: bool
    since_ns: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Said:
    """What one frame says: float32 scores (classes,) and the place of its label; None: no label."""

    scores: NDArray[np.float32]
    place: int | None


@dataclass(frozen=True, kw_only=True, eq=False)
class State:
    """What the next decision needs of the frames before it: those in the window, the oldest first, and the decision."""

    window: tuple[Said, ...] = ()
    at_ns: int | None = None
    decided: Decision | None = None


START = State()
"""The state before the first frame."""


def step(rule: Rule, state: State, result: Result, at_ns: int) -> tuple[State, Decision]:
    """Decide at one frame. Nothing is changed: the same arguments give the same answer.

    Args:
        rule: the same at every step.
        state: of the step before; ``START`` at the first.
        result: of this frame, by the same classifier at every step.
        at_ns: when the frame was captured, in nanoseconds of any steady clock.

    Returns:
        (the state for the next step, the decision).
    """
    before = state.decided.label if state.decided is not None else None
    if state.at_ns is not None and at_ns - state.at_ns > rule.max_gap_ms * 1e6:
        state = START
    decided = state.decided
    held = decided.label if decided is not None else None
    if rule.window is None and rule.hysteresis is None:
        window: tuple[Said, ...] = ()
        label, score = (result.label if result.accepted else None), result.score
    else:
        frames = 1 if rule.window is None else rule.window.frames
        window = (*state.window, _said(result))[-frames:]
        label, score = _conclude(rule, window, result, held)
    since_ns = decided.since_ns if decided is not None and label == held else at_ns
    decision = Decision(label=label, score=score, changed=label != before, since_ns=since_ns)
    return State(window=window, at_ns=at_ns, decided=decision), decision


def _said(result: Result) -> Said:
    return Said(scores=result.scores, place=result.labels.index(result.label) if result.accepted else None)


def _conclude(rule: Rule, window: tuple[Said, ...], result: Result, held: str | None) -> tuple[str | None, float]:
    """(the label, its score) of the frames in the window; ``held`` was decided on before."""
    labels, allowed = result.labels, result.reading.allowed
    place = None if held is None else labels.index(held)
    if isinstance(rule.window, MajorityVote):
        scores, offered = _vote(window, rule.window.frames, place, len(labels))
    else:
        frames = 1 if rule.window is None else rule.window.frames
        scores, offered = _average(window, frames, len(labels), allowed)
    if rule.hysteresis is None:
        place = offered
    elif place is None or scores[place] < rule.hysteresis.leave:
        place = offered if offered is not None and scores[offered] >= rule.hysteresis.enter else None
    score = float(scores[best(scores, allowed) if place is None else place])
    return None if place is None else labels[place], score


def _average(
    window: tuple[Said, ...], frames: int, classes: int, allowed: Places | None
) -> tuple[NDArray[np.float64], int | None]:
    """(float64 mean scores (classes,), place of the highest; None: too few frames have a label)."""
    voters = [said.scores for said in window if said.place is not None]
    mean = np.zeros(classes)
    for scores in voters:
        mean += scores
    mean /= frames
    return mean, best(mean, allowed) if 2 * len(voters) > frames else None


def _vote(
    window: tuple[Said, ...], frames: int, held: int | None, classes: int
) -> tuple[NDArray[np.float64], int | None]:
    """(float64 shares of the votes (classes,), place of the most; None: "no label" has them)."""
    places = [said.place for said in window if said.place is not None]
    votes = np.bincount(np.array(places, np.intp), minlength=classes)
    silent = frames - len(places)
    most = max(int(votes.max()), silent)
    if (silent if held is None else votes[held]) == most:
        winner = held
    else:
        winner = int(votes.argmax()) if votes.max() == most else None
    return votes / frames, winner


def _check_frames(frames: int) -> None:
    if frames < 1:
        raise UsageError(f"A window must have at least 1 frame, but it has {frames}.")


def parse_rule(text: str) -> Rule:
    """A rule as ``--decide`` takes it: parts joined by ``+``, each kind at most once and one window at most.

    ``average:FRAMES`` and ``vote:FRAMES`` are windows, ``hysteresis:ENTER:LEAVE`` follows them in any order,
    ``gap:SECONDS`` sets the largest gap between frames: ``average:15+hysteresis:0.8:0.5``.

    Raises:
        UsageError: it is none.
    """
    fields: dict[str, Any] = {}
    for part in text.split("+"):
        kind, *numbers = part.split(":")
        try:
            field, make = _PARTS[kind]
            made = make(*numbers)
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, UsageError):  # of a number out of range
                raise
            raise _not_a_rule(text) from None
        if field in fields:
            raise _not_a_rule(text)
        fields[field] = made
    return Rule(**fields)


_PARTS: dict[str, tuple[str, Callable[..., Any]]] = {
    "average": ("window", lambda frames: MovingAverage(frames=int(frames))),
    "vote": ("window", lambda frames: MajorityVote(frames=int(frames))),
    "hysteresis": ("hysteresis", lambda enter, leave: Hysteresis(enter=float(enter), leave=float(leave))),
    "gap": ("max_gap_ms", lambda seconds: float(seconds) * 1e3),
}
"""What a part of a rule is called, the field of ``Rule`` it sets, and what makes it of its numbers."""


def _not_a_rule(text: str) -> UsageError:
    return UsageError(
        "A rule must be average:FRAMES or vote:FRAMES, hysteresis:ENTER:LEAVE, gap:SECONDS, or several of them joined "
        f"by + (average:15+hysteresis:0.8:0.5), but it is {text!r}."
    )

from __future__ import annotations

from collections import Counter
from time import perf_counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeclf_device import UsageError
from edgeclf_device.classifier import Reading, Result
from edgeclf_device.decisions import START, Hysteresis, MajorityVote, MovingAverage, Rule, parse_rule, step

LABELS = ("a", "b", "c")
PERIOD_NS = 33_000_000
frames_of = st.integers(1, 6)
rows = st.lists(st.tuples(st.lists(st.integers(0, 4), min_size=3, max_size=3), st.booleans()), min_size=1, max_size=25)
"""(scores in quarters, accepted): small numbers, so that ties are common."""


def result(scores, *, accepted=True, labels=LABELS, allowed=None):
    output = np.array(scores, np.float32)
    place = int(output.argmax()) if allowed is None else int(allowed[output[allowed].argmax()])
    return Result(
        label=labels[place],
        score=float(output[place]),
        accepted=accepted,
        output=output,
        reading=Reading(labels=labels, allowed=allowed),
        spent_ns=(0, 0, 0),
    )


def decide(rule, results, times=None):
    state, decisions = START, []
    for index, one in enumerate(results):
        state, decision = step(rule, state, one, index * PERIOD_NS if times is None else times[index])
        decisions.append(decision)
    return decisions


def labels_of(rule, results, times=None):
    return [decision.label for decision in decide(rule, results, times)]


def quarters(drawn):
    return [result(np.array(scores) / 4, accepted=accepted) for scores, accepted in drawn]


def spelled(text):
    """One sure result for each letter; a dot is one that is not accepted."""
    return [
        result([0.4, 0.3, 0.3], accepted=False) if letter == "." else result(np.eye(3)[LABELS.index(letter)])
        for letter in text
    ]


def shown(labels):
    return "".join(label or "." for label in labels)


def test_without_a_rule_every_frame_decides_for_itself_and_what_is_not_accepted_is_no_label():
    decisions = decide(Rule(), spelled("aab.b"))
    assert shown(decision.label for decision in decisions) == "aab.b"
    assert [decision.changed for decision in decisions] == [True, False, True, True, True]
    assert [decision.since_ns // PERIOD_NS for decision in decisions] == [0, 0, 2, 3, 4]
    assert decisions[3].score == pytest.approx(0.4)


@settings(deadline=None)
@given(rows, frames_of)
def test_an_average_is_the_mean_over_its_window_and_over_nothing_else(drawn, frames):
    results = quarters(drawn)
    for end, decision in enumerate(decide(Rule(window=MovingAverage(frames=frames)), results)):
        window = results[max(0, end + 1 - frames) : end + 1]
        accepted = [one.scores for one in window if one.accepted]
        mean = np.sum(accepted, axis=0, dtype=np.float64) / frames if accepted else np.zeros(3)
        assert decision.label == (LABELS[mean.argmax()] if 2 * len(accepted) > frames else None)
        assert decision.score == mean.max()


@settings(deadline=None)
@given(rows, frames_of)
def test_a_vote_is_the_majority_of_its_window_with_ties_to_what_was_held(drawn, frames):
    results = quarters(drawn)
    held = None
    for end, decision in enumerate(decide(Rule(window=MajorityVote(frames=frames)), results)):
        window = results[max(0, end + 1 - frames) : end + 1]
        ballots = Counter(one.label if one.accepted else None for one in window)
        ballots[None] += frames - len(window)
        winners = [label for label in (*LABELS, None) if ballots[label] == max(ballots.values())]
        expected = held if held in winners else winners[0]
        assert decision.label == expected
        share = max(ballots[label] for label in LABELS) if expected is None else ballots[expected]
        assert decision.score == share / frames
        held = expected


@settings(deadline=None)
@given(rows, st.integers(0, 4), st.integers(0, 4))
def test_hysteresis_never_gives_a_label_up_above_leave_and_never_takes_one_below_enter(drawn, one, other):
    enter, leave = max(one, other) / 4, min(one, other) / 4
    results = quarters(drawn)
    before = None
    for seen, decision in zip(
        results, decide(Rule(hysteresis=Hysteresis(enter=enter, leave=leave)), results), strict=True
    ):
        scores = dict(zip(LABELS, seen.scores if seen.accepted else np.zeros(3), strict=True))
        if before is not None and scores[before] >= leave:
            assert decision.label == before
            assert not decision.changed
        elif decision.label is not None:
            assert seen.accepted
            assert decision.label == seen.label
            assert scores[decision.label] >= enter
        else:
            assert not seen.accepted or scores[seen.label] < enter
        before = decision.label


@settings(deadline=None)
@given(st.lists(st.floats(0.5, 0.79), min_size=1, max_size=40))
def test_a_score_between_enter_and_leave_changes_nothing_whichever_side_it_came_from(wobble):
    rule = Rule(hysteresis=Hysteresis(enter=0.8, leave=0.5))
    results = [result([score, 0.0, 0.0]) for score in wobble]
    assert set(labels_of(rule, results)) == {None}
    assert set(labels_of(rule, [result([0.9, 0, 0]), *results])) == {"a"}


@settings(deadline=None)
@given(rows, rows, st.sampled_from(["average:4", "vote:5", "hysteresis:0.75:0.25", "vote:3+hysteresis:0.6:0.3"]))
def test_after_a_gap_nothing_that_was_before_it_counts(before, after, text):
    rule = parse_rule(f"{text}+gap:0.5")
    gap_ns = 500_000_001
    times = [index * PERIOD_NS for index in range(len(before))]
    later = [times[-1] + gap_ns + index * PERIOD_NS for index in range(len(after))]
    whole = decide(rule, quarters(before + after), times + later)[len(before) :]
    alone = decide(rule, quarters(after), later)
    assert [(one.label, one.score, one.since_ns) for one in whole] == [
        (one.label, one.score, one.since_ns) for one in alone
    ]


def test_a_gap_that_is_exactly_the_limit_is_none():
    rule = parse_rule("vote:3+gap:0.5")
    assert labels_of(rule, spelled("aaa"), [0, 500_000_000, 1_000_000_000]) == [None, "a", "a"]
    assert labels_of(rule, spelled("aaa"), [0, 500_000_001, 1_000_000_002]) == [None, None, None]


def test_a_label_that_a_gap_takes_away_has_changed():
    rule = parse_rule("vote:3+gap:1")
    decisions = decide(rule, spelled("aaaa"), [0, 1, 2, 5_000_000_000])
    assert [decision.changed for decision in decisions] == [False, True, False, True]
    assert decisions[-1].label is None
    assert decisions[-1].since_ns == 5_000_000_000


def test_a_window_that_is_not_full_counts_its_missing_frames_as_no_label():
    assert shown(labels_of(Rule(window=MajorityVote(frames=5)), spelled("aaaa"))) == "..aa"
    assert shown(labels_of(Rule(window=MovingAverage(frames=5)), spelled("aaaa"))) == "..aa"
    assert shown(labels_of(Rule(window=MovingAverage(frames=4)), spelled("aaaa"))) == "..aa"


def test_single_odd_frames_do_not_flicker_through_a_vote():
    assert (
        shown(labels_of(Rule(window=MajorityVote(frames=5)), spelled("aaaaabaaacaa.aabbbbb"))) == "..aaaaaaaaaaaaaaabbb"
    )


def test_a_window_that_goes_dark_ends_in_no_label():
    assert shown(labels_of(Rule(window=MajorityVote(frames=3)), spelled("aaa....bb"))) == ".aaa....b"
    assert shown(labels_of(Rule(window=MovingAverage(frames=3)), spelled("aaa....bb"))) == ".aaa....b"


def test_hysteresis_behind_an_average_sees_the_average():
    rule = parse_rule("average:4+hysteresis:0.9:0.5")
    assert shown(labels_of(rule, spelled("aaaaabbbb"))) == "...aaaa.b"


def test_hysteresis_alone_gives_a_label_up_at_a_frame_that_is_not_accepted():
    rule = Rule(hysteresis=Hysteresis(enter=0.5, leave=0.1))
    assert shown(labels_of(rule, [result([0.9, 0, 0]), result([0.4, 0, 0], accepted=False)])) == "a."


def test_labels_that_are_not_allowed_never_win_an_average():
    results = [result([0.6, 0.3, 0.1], allowed=np.array([1, 2]))] * 3
    (*_, last) = decide(Rule(window=MovingAverage(frames=3)), results)
    assert last.label == "b"
    assert last.score == pytest.approx(0.3)


def test_a_step_changes_neither_the_state_nor_the_scores():
    rule = parse_rule("average:2")
    state, _ = step(rule, START, result([1, 0, 0]), 0)
    again = [step(rule, state, result([0, 0.5, 0]), 1)[1] for _ in range(3)]
    assert again[0] == again[1] == again[2]
    assert START.decided is None
    assert state.window[0].scores.tolist() == [1, 0, 0]


def test_a_window_holds_no_more_than_its_frames():
    rule, state = parse_rule("average:3"), START
    for index in range(10):
        state, _ = step(rule, state, result([1, 0, 0]), index)
    assert len(state.window) == 3


def test_a_rule_costs_little_beside_an_inference():
    labels = tuple(f"class {index}" for index in range(1000))
    one = result(np.linspace(0, 1, 1000), labels=labels)
    for text in ("average:15+hysteresis:0.8:0.5", "vote:15"):
        rule, state = parse_rule(text), START
        for index in range(20):
            state, _ = step(rule, state, one, index)
        spent = []
        for index in range(100):
            begin = perf_counter()
            state, _ = step(rule, state, one, 20 + index)
            spent.append(perf_counter() - begin)
        assert min(spent) < 1e-3


def test_rules_are_read_from_text():
    assert parse_rule("average:15") == Rule(window=MovingAverage(frames=15))
    assert parse_rule("vote:9") == Rule(window=MajorityVote(frames=9))
    assert parse_rule("hysteresis:0.8:0.5") == Rule(hysteresis=Hysteresis(enter=0.8, leave=0.5))
    assert parse_rule("hysteresis:.8:.5+gap:3+vote:9") == Rule(
        window=MajorityVote(frames=9), hysteresis=Hysteresis(enter=0.8, leave=0.5), max_gap_ms=3000
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "average",
        "average:",
        "average:2.5",
        "average:15:3",
        "mean:15",
        "average:15+vote:9",
        "vote:9+vote:9",
        "hysteresis:0.8",
        "hysteresis:a:b",
        "average:15,vote:3",
        "average:15+",
        "gap:x",
    ],
)
def test_what_is_no_rule_is_refused_with_the_form_and_what_was_given(text):
    with pytest.raises(UsageError, match="average:FRAMES") as caught:
        parse_rule(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "average:0",
        "vote:-3",
        "hysteresis:0.5:0.8",
        "hysteresis:80:50",
        "hysteresis:nan:0",
        "gap:0",
        "gap:nan",
        "gap:inf",
    ],
)
def test_numbers_out_of_range_are_refused(text):
    with pytest.raises(UsageError, match=r"must|takes"):
        parse_rule(text)

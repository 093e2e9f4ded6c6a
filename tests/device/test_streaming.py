from __future__ import annotations

import gc
import threading
import time
import weakref
from itertools import pairwise

import numpy as np
import pytest

from edgeclf_device import Classifier
from edgeclf_device.decisions import parse_rule
from edgeclf_device.sources import Frame, SourceStatus, open_source
from edgeclf_device.streaming import Follower, stream


class Given:
    """A source of images made on demand; ``None`` among them blocks like a stalled camera until it is closed."""

    def __init__(self, images, *, period_s=0.0):
        self.description, self.total, self.rejected = "given", None, []
        self.state = "live"
        self.taken = 0
        self._images = images
        self._period_s = period_s
        self._closed = threading.Event()

    def __iter__(self):
        for index, make in enumerate(self._images):
            if make is None:
                self.state = "stalled"
                self._closed.wait(30)
                return
            time.sleep(self._period_s)
            self.taken += 1
            yield Frame(
                image=make(index),
                color="rgb",
                index=index,
                name=f"given#{index}",
                capture_ms=1.5,
                captured_ns=time.monotonic_ns(),
            )

    def status(self):
        return SourceStatus(state=self.state)

    def take_notes(self):
        return []

    def close(self):
        self.state = "ended"
        self._closed.set()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


def image(index):
    return np.random.default_rng(index).integers(0, 256, (40, 50, 3), dtype=np.uint8)


@pytest.fixture
def classify(some_artifact):
    with Classifier.open(some_artifact, threads=1) as opened:
        yield opened


def test_every_frame_is_an_event_with_its_result_and_decision(classify):
    events = list(stream(classify, Given([image] * 4)))
    assert [event.frame.index for event in events] == [0, 1, 2, 3]
    for index, event in enumerate(events):
        assert np.array_equal(event.result.scores, classify(image(index)).scores)
        assert (event.decision.label, event.decision.score) == (event.result.label, event.result.score)
        assert event.total_ms == pytest.approx(1.5 + sum(event.result.timing_ms.values()))
        assert 0 < sum(event.result.timing_ms.values()) <= event.age_ms < 10_000


def test_the_age_of_an_event_counts_from_the_capture_to_the_decision(classify):
    def slow(frame, *, color):
        time.sleep(0.05)
        return classify(frame, color=color)

    (event,) = stream(slow, Given([image]))
    assert 50 <= event.age_ms < 5000


def test_a_rule_makes_the_decisions(classify):
    labels = [
        event.decision.label for event in stream(classify, Given([lambda _: image(0)] * 5), rule=parse_rule("vote:5"))
    ]
    assert labels == [None, None, *[classify(image(0)).label] * 3]


def test_not_a_frame_more_than_asked_for_is_taken(classify):
    source = Given([image] * 10)
    assert len(list(stream(classify, source, max_frames=3))) == 3
    assert source.taken == 3


@pytest.fixture
def little_to_collect():
    """What is in memory already, TensorFlow maybe, is not looked through at each collection."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("little_to_collect")
def test_no_frame_is_held_while_the_next_one_is_waited_for(classify):
    made, alive = [], []

    class Watched(np.ndarray):
        """An array that can be referred to weakly."""

    def make(index):
        gc.collect()
        alive.append(sum(one() is not None for one in made))
        new = image(index).view(Watched)
        made.append(weakref.ref(new))
        return new

    for event in stream(classify, Given([make] * 5), rule=parse_rule("average:3")):
        del event
    with Follower(classify, Given([make] * 5), lambda event: None, rule=parse_rule("average:3")) as follower:
        follower.join()
    assert alive == [0] * 10


def test_frames_of_a_folder_are_streamed(classify, tmp_path):
    for index in range(3):
        np.save(tmp_path / f"{index}.npy", image(index))
    with open_source(str(tmp_path)) as source:
        names = [event.frame.name for event in stream(classify, source)]
    assert names == ["0.npy", "1.npy", "2.npy"]


def test_what_the_source_raises_comes_out_at_its_frame(classify):
    def broken(index):
        raise OSError("the camera burns")

    events = stream(classify, Given([image, broken]))
    next(events)
    with pytest.raises(OSError, match="burns"):
        next(events)


def test_a_follower_calls_back_with_every_event_and_ends_with_its_source(classify):
    seen = []
    with Follower(classify, Given([image] * 6), seen.append) as follower:
        assert follower.join(30)
    assert [event.frame.index for event in seen] == list(range(6))


def test_a_follower_calls_back_from_one_other_thread(classify):
    threads = set()
    with Follower(classify, Given([image] * 3), lambda event: threads.add(threading.get_ident())) as follower:
        follower.join()
    assert len(threads) == 1
    assert threading.get_ident() not in threads


@pytest.mark.parametrize("where", ["source", "classifier", "callback"])
def test_what_is_raised_in_the_thread_comes_out_of_join_once(classify, where):
    def fail(*_, **__):
        raise ValueError(where)

    source = Given([image, fail if where == "source" else image])
    follower = Follower(
        fail if where == "classifier" else classify,
        source,
        fail if where == "callback" else lambda event: None,
    )
    with follower:
        with pytest.raises(ValueError, match=where):
            follower.join(30)
        assert follower.join(30)


def test_an_error_nobody_joined_for_comes_out_at_the_end_of_the_block(classify):
    def fail(event):
        raise ValueError("callback")

    with pytest.raises(ValueError, match="callback"), Follower(classify, Given([image]), fail):
        pass


def test_the_error_of_the_block_is_not_hidden_by_that_of_the_thread(classify):
    def fail(event):
        raise ValueError("callback")

    with pytest.raises(KeyError, match="block"), Follower(classify, Given([image]), fail):
        raise KeyError("block")


def test_stop_ends_within_one_frame(classify):
    source = Given([image] * 1000, period_s=0.02)
    begun = threading.Event()
    with Follower(classify, source, lambda event: begun.set()) as follower:
        assert begun.wait(30)
        follower.stop()
        taken = source.taken
        assert follower.join(30)
        assert source.taken <= taken + 1


def test_the_callback_may_stop_its_own_follower(classify):
    source = Given([image] * 1000)
    follower = Follower(classify, source, lambda event: follower.stop())
    with follower:
        assert follower.join(30)
    assert source.taken == 1


def test_a_follower_of_a_stalled_camera_can_be_stopped(classify):
    source = Given([image, None])
    with source, Follower(classify, source, lambda event: None) as follower:
        assert not follower.join(0.3)
        begin = time.monotonic()
    assert time.monotonic() - begin < 2


def test_join_gives_up_after_its_time(classify):
    with Follower(classify, Given([image] * 1000, period_s=0.05), lambda event: None) as follower:
        begin = time.monotonic()
        assert not follower.join(0.15)
        assert 0.1 < time.monotonic() - begin < 5


def test_a_live_source_is_followed_and_let_go(classify):
    seen = []
    with open_source("synthetic:64x48@50") as source, Follower(classify, source, seen.append) as follower:
        end = time.monotonic() + 30
        while len(seen) < 5 and time.monotonic() < end:
            time.sleep(0.01)
        follower.stop()
        assert follower.join(30)
    assert len(seen) >= 5
    assert all(later.frame.captured_ns > earlier.frame.captured_ns for earlier, later in pairwise(seen))

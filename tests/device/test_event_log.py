from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from edgeclf_device.errors import SystemStateError
from edgeclf_device.event_log import RETRY_NS, EventLog


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test moves."""

    class Clock:
        now_ns = 0

    monkeypatch.setattr("edgeclf_device.event_log.monotonic_ns", lambda: Clock.now_ns)
    return Clock


def lines(path: Path) -> list[int]:
    return [json.loads(line)["number"] for line in path.read_text("utf-8").splitlines()]


def test_lines_are_there_at_once_and_replace_an_older_file(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text("old\n")
    with EventLog(path) as log:
        log.write({"number": 1, "label": "ひび割れ \udcff"})
        assert lines(path) == [1]
        assert log.take_notes() == []


def test_a_full_disk_costs_lines_and_writing_resumes_when_there_is_space(small_disk, clock):
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(48 << 10))
    path = small_disk / "events.jsonl"
    with EventLog(path) as log:
        for number in range(400):
            log.write({"number": number, "filling": "x" * 100})
            clock.now_ns += RETRY_NS // 4
        (note,) = log.take_notes()
        assert note.level == "error"
        assert "No space left" in note.text
        before = lines(path)
        assert before == list(range(len(before))), "every line is whole"
        ballast.unlink()
        clock.now_ns += RETRY_NS
        log.write({"number": 400})
        log.write({"number": 401})
        (note,) = log.take_notes()
        assert (note.level, f"; {400 - len(before)} events" in note.text) == ("info", True)
    assert lines(path) == [*before, 400, 401]


def test_a_failing_file_is_not_asked_for_every_frame(clock):
    with EventLog(Path("/dev/full")) as log:
        log.write({"number": 0})
        assert [note.level for note in log.take_notes()] == ["error"]
        calls = []
        log._append = calls.append
        log.write({"number": 1})
        assert calls == []
        clock.now_ns += RETRY_NS
        log.write({"number": 2})
        assert len(calls) == 1
        assert "; 2 events" in log.take_notes()[0].text


def test_half_a_line_is_taken_back(tmp_path, clock, monkeypatch):
    path = tmp_path / "events.jsonl"
    write = os.write
    with EventLog(path) as log:
        log.write({"number": 0})
        answers = [5, OSError(errno.ENOSPC, "full")]

        def failing(descriptor, data):
            answer = answers.pop(0)
            if isinstance(answer, OSError):
                raise answer
            return write(descriptor, data[:answer])

        with monkeypatch.context() as patch:
            patch.setattr("edgeclf_device.event_log.os.write", failing)
            log.write({"number": 1})
        assert lines(path) == [0]
        clock.now_ns += RETRY_NS
        log.write({"number": 2})
    assert lines(path) == [0, 2]


def test_a_reader_that_goes_away_is_heard_of(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with EventLog(path) as log:
        os.close(reader)
        with pytest.raises(BrokenPipeError):
            log.write({"number": 0})


def test_5_a_file_that_can_not_be_opened(tmp_path):
    with pytest.raises(SystemStateError, match=r"can't be written: .*; choose another place"):
        EventLog(tmp_path / "nowhere" / "events.jsonl")

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from edgeclf_device import state
from edgeclf_device.engines import MODULES, installed
from edgeclf_device.state import (
    EngineChoice,
    board,
    engine_version,
    forget_state,
    read_state,
    state_folder,
    tuned,
    write_state,
)

DIGEST = "ab" * 32
BELOW_HOME = Path(".local/state/edgeclf")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGECLF_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def engine():
    name = next(filter(installed, MODULES), None)
    return name or pytest.skip("no engine is installed")


def kept_file(folder):
    return folder / "tuning" / DIGEST / f"{board()}.json"


def choice(engine):
    return {"engine": engine, "engine_version": engine_version(engine), "threads": 2}


def test_the_folder_is_the_first_that_is_named():
    everything = {
        "EDGECLF_STATE": "/own",
        "STATE_DIRECTORY": "/var/lib/edgeclf:/var/lib/other",
        "XDG_STATE_HOME": "/xdg",
    }
    assert state_folder(everything) == Path("/own")
    assert state_folder({**everything, "EDGECLF_STATE": ""}) == Path("/var/lib/edgeclf")
    assert state_folder({"XDG_STATE_HOME": "/xdg"}) == Path("/xdg/edgeclf")
    assert state_folder({"XDG_STATE_HOME": "not/absolute"}) == Path.home() / BELOW_HOME
    assert state_folder({}) == Path.home() / BELOW_HOME


def test_what_is_kept_is_read_again():
    path = write_state("tuning", DIGEST, {"threads": 2, "name": "Riß"})
    assert path is not None
    assert path.is_file()
    assert read_state("tuning", DIGEST) == {"threads": 2, "name": "Riß"}
    assert write_state("tuning", DIGEST, {"threads": 4}) == path
    assert read_state("tuning", DIGEST) == {"threads": 4}
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_what_is_kept_is_of_one_artifact_one_kind_and_one_board(monkeypatch):
    write_state("tuning", DIGEST, {"threads": 2})
    assert read_state("tuning", "cd" * 32) is None
    assert read_state("other", DIGEST) is None
    monkeypatch.setattr(state, "board", lambda: "another board")
    assert read_state("tuning", DIGEST) is None


def test_two_boards_share_a_folder(folder, monkeypatch):
    write_state("tuning", DIGEST, {"threads": 2})
    with monkeypatch.context() as other:
        other.setattr(state, "board", lambda: "another-board")
        write_state("tuning", DIGEST, {"threads": 4})
        assert forget_state("tuning", DIGEST)
    assert read_state("tuning", DIGEST) == {"threads": 2}


def test_a_board_is_told_by_its_model_cores_and_architecture(monkeypatch):
    from edgeclf_device import environment

    plain = environment.record_environment()
    names = set()
    for changes in ({}, {"board": "Raspberry Pi 5"}, {"cores": plain.cores + 1}, {"architecture": "riscv64"}, {}):
        board.cache_clear()
        monkeypatch.setattr(
            environment, "record_environment", lambda changes=changes: type(plain)(**{**vars(plain), **changes})
        )
        names.add(board())
    board.cache_clear()
    assert len(names) == 4
    assert all(len(name) == 12 for name in names)


def test_what_was_forgotten_is_gone(folder):
    assert not forget_state("tuning", DIGEST)
    write_state("tuning", DIGEST, {})
    assert forget_state("tuning", DIGEST)
    assert read_state("tuning", DIGEST) is None
    assert not forget_state("tuning", DIGEST)
    assert not kept_file(folder).parent.exists()


def test_nothing_kept_is_no_note():
    notes = []
    assert read_state("tuning", DIGEST, tell=notes.append) is None
    assert notes == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"7", "no record"),
        (b"{}", "no record"),
        (b'{"format": [1, 0], "value": []}', "no record"),
        (b'{"format": [2, 0], "value": {}}', "format"),
        (b'{"format": 1, "value": {}}', "format"),
        (b'{"format": [1, 0], "value": {}, "digest": "x", "board": "y", "kind": "z"}', "another artifact or board"),
        (b" " * ((1 << 20) + 1), "not JSON"),
    ],
)
def test_a_damaged_or_foreign_record_is_left_aside_with_a_note(folder, content, reason):
    kept_file(folder).parent.mkdir(parents=True)
    kept_file(folder).write_bytes(content)
    notes = []
    assert read_state("tuning", DIGEST, tell=notes.append) is None
    (note,) = notes
    assert reason in note
    assert str(folder) in note
    assert tuned(DIGEST) is None
    assert write_state("tuning", DIGEST, {"threads": 1}) == kept_file(folder)
    assert read_state("tuning", DIGEST) == {"threads": 1}


def test_a_record_of_another_artifact_that_was_copied_here_is_left_aside(folder):
    write_state("tuning", "cd" * 32, {"threads": 1})
    shutil.copytree(folder / "tuning" / ("cd" * 32), folder / "tuning" / DIGEST)
    notes = []
    assert read_state("tuning", DIGEST, tell=notes.append) is None
    assert "another artifact" in notes[0]


def test_a_newer_minor_format_and_its_unknown_fields_are_read(folder):
    write_state("tuning", DIGEST, {"threads": 1})
    record = json.loads(kept_file(folder).read_text())
    kept_file(folder).write_text(json.dumps({**record, "format": [1, 7], "new": 1}))
    assert read_state("tuning", DIGEST) == {"threads": 1}


@pytest.mark.parametrize("obstacle", ["a file", "below a file", "no permission"])
def test_a_folder_that_can_not_be_written_is_a_note(tmp_path, monkeypatch, obstacle):
    if obstacle == "no permission" and (os.getuid() == 0 or sys.platform != "linux"):
        monkeypatch.setenv("EDGECLF_STATE", "/proc/edgeclf")  # where not even root may write
    elif obstacle == "no permission":
        (tmp_path / "closed").mkdir(mode=0o500)
        monkeypatch.setenv("EDGECLF_STATE", str(tmp_path / "closed" / "state"))
    else:
        (tmp_path / "file").touch()
        monkeypatch.setenv("EDGECLF_STATE", str(tmp_path / "file" / ("x" if obstacle == "below a file" else "")))
    notes = []
    assert write_state("tuning", DIGEST, {}, tell=notes.append) is None
    assert "EDGECLF_STATE" in notes[0]
    assert read_state("tuning", DIGEST) is None
    assert not forget_state("tuning", DIGEST)


def test_a_user_without_a_home_works_without_state(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("EDGECLF_STATE")
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    notes = []
    assert state_folder() is None
    assert write_state("tuning", DIGEST, {}, tell=notes.append) is None
    assert "home" in notes[0]
    assert read_state("tuning", DIGEST) is None
    assert tuned(DIGEST) is None
    assert not forget_state("tuning", DIGEST)


def test_a_tuned_choice_holds_while_its_engine_stays(engine):
    assert tuned(DIGEST) is None
    write_state("tuning", DIGEST, choice(engine))
    assert tuned(DIGEST) == EngineChoice(engine=engine, engine_version=engine_version(engine), threads=2)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"engine_version": "0.0.1"}, "now; run tune again"),
        ({"engine": "abacus"}, "no longer installed"),
        ({"threads": 0}, "damaged"),
        ({"threads": True}, "damaged"),
        ({"threads": "2"}, "damaged"),
        ({"engine": None}, "damaged"),
        ({"engine": ["litert"]}, "damaged"),
    ],
)
def test_a_tuned_choice_that_no_longer_holds_is_left_aside_with_a_note(engine, changes, reason):
    write_state("tuning", DIGEST, {**choice(engine), **changes})
    notes = []
    assert tuned(DIGEST, tell=notes.append) is None
    assert reason in notes[0]


def test_the_version_of_an_engine_is_told_without_importing_it(child, engine):
    code = """
import sys
from edgeclf_device.state import engine_version
from edgeclf_device.engines import PACKAGES
print(engine_version(sys.argv[1]))
assert PACKAGES[sys.argv[1]] not in sys.modules
"""
    done = child(code, engine)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == engine_version(engine) != "unknown"
    assert engine_version("abacus") is None

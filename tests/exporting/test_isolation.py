from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from edgeclf.exporting import isolation
from edgeclf_device.errors import ModelError, SystemStateError


@pytest.fixture
def start(tmp_path):
    """Runs a few lines of Python as the child and lists what it answers."""

    def run(code: str, timeout_s: float = 20.0) -> list[dict]:
        (tmp_path / "lines_of_a_test.py").write_text(textwrap.dedent(code), encoding="utf-8")
        with isolation.child(
            "lines_of_a_test",
            "argument",
            task="the converter",
            timeout_s=timeout_s,
            environment={"PYTHONPATH": str(tmp_path)},
        ) as answers:
            return list(answers)

    return run


def test_answers_arrive_in_order_whatever_else_is_printed_to_stderr(start):
    lines = start("""
        import sys
        print('{"argument": "%s"}' % sys.argv[1])
        print("noise", file=sys.stderr)
        print('{"ü": 2}', flush=True)
    """)
    assert lines == [{"argument": "argument"}, {"ü": 2}]


def test_an_error_of_the_child_is_raised_as_itself(start):
    with pytest.raises(ModelError, match="no layer is left"):
        start("""print('{"error": "ModelError", "message": "no layer is left"}')""")


def test_a_crash_becomes_a_sentence_with_the_signal_and_the_last_lines(start):
    with pytest.raises(SystemStateError) as caught:
        start("""
            import os, signal, sys
            print("I0000 00:00:1 oneDNN is on", file=sys.stderr)
            print("unsupported operator", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGSEGV)
        """)
    assert "The converter crashed with SIGSEGV" in str(caught.value)
    assert str(caught.value).endswith("\n  | unsupported operator")


def test_a_killed_child_is_said_to_be_short_of_memory(start):
    with pytest.raises(SystemStateError, match=r"was killed .*memory"):
        start("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")


def test_a_child_that_fails_without_a_word_is_an_error(start):
    with pytest.raises(SystemStateError, match="ended with code 3"):
        start("raise SystemExit(3)")


def test_half_an_answer_is_none(start):
    with pytest.raises(SystemStateError, match="ended with code 1"):
        start("""import os; os.write(1, b'{"converted": "tfl'); os._exit(1)""")


@pytest.mark.parametrize("close", ["", "import os; os.close(1)"], ids=["silent", "with its output closed"])
def test_a_child_that_never_ends_is_ended(start, close):
    begin = time.monotonic()
    with pytest.raises(SystemStateError, match=r"may take 1\.5 s"):
        start(f"{close}\nimport time; time.sleep(60)", timeout_s=1.5)
    assert time.monotonic() - begin < 15


def test_leaving_early_ends_the_child_and_its_children(tmp_path):
    (tmp_path / "family.py").write_text(
        "import subprocess, sys, time\n"
        "one = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print('{\"pid\": %d}' % one.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    pids = []

    def interrupted() -> None:
        environment = {"PYTHONPATH": str(tmp_path)}
        with isolation.child("family", "", task="it", timeout_s=60, environment=environment) as answers:
            pids.append(next(answers)["pid"])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    wait_until_gone(pids[0])


def test_the_child_of_the_export_ends_when_its_parent_is_killed(tmp_path):
    code = """
        import os, sys, time
        from edgeclf.exporting import child
        child._end_with_parent()
        print('{"pid": %d}' % os.getpid(), flush=True)
        time.sleep(60)
    """
    (tmp_path / "orphan.py").write_text(textwrap.dedent(code))
    parent_code = (
        "from edgeclf.exporting import isolation\n"
        f"with isolation.child('orphan', '', task='it', timeout_s=60, environment={{'PYTHONPATH': {str(tmp_path)!r}}})"
        " as answers:\n"
        "    print(next(answers)['pid'], flush=True)\n"
        "    next(answers)\n"
    )
    with subprocess.Popen([sys.executable, "-c", parent_code], stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        parent.kill()
    wait_until_gone(pid)


def wait_until_gone(pid: int) -> None:
    for _ in range(200):
        try:
            os.kill(pid, 0)
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (ProcessLookupError, FileNotFoundError):
            return
        if state == "Z":
            return
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    raise AssertionError(f"process {pid} was still there")

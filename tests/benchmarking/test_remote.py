from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from edgeclf.benchmarking.probe import probe
from edgeclf.benchmarking.remote import bench_hosts, bench_remote
from edgeclf.benchmarking.ssh import Host, connected
from edgeclf_device.bench import STAGES, read_measurements
from edgeclf_device.bench.comparing import MIN_ROUNDS
from edgeclf_device.errors import DependencyError, ModelError, UsageError

SHORT_S = 0.2
FEW = ("--warmup=3", "--no-cold-start")


def bench(server, artifacts, python, **options):
    with connected("board", config=server.config) as host:
        how = {"seconds": SHORT_S, "arguments": FEW, **options}
        return bench_remote(host, artifacts, host_python=python, **how).measurements


def eventually(found, seconds=60.0):
    """Wait until ``found()`` is true."""
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def sent(monkeypatch):
    """The sizes of the files that are sent."""
    sizes = []
    put = Host.put

    def counted(self, file, remote, **options):
        sizes.append(file.stat().st_size)
        put(self, file, remote, **options)

    monkeypatch.setattr(Host, "put", counted)
    return sizes


def test_artifacts_are_measured_on_the_board_and_nothing_stays(server, artifacts, python, tmp_path):
    before = set(tmp_path.rglob("*"))
    made = bench(server, artifacts, python, threads=(1, 2))
    assert [one.artifact for one in made] == [file.name for file in artifacts for _ in (1, 2)]
    assert [one.threads for one in made] == [1, 2] * len(artifacts)
    for one in made:
        value = json.loads(json.dumps(one.to_json()))
        assert value["host"] == "board"
        assert value["format"] == [2, 1]
        assert set(value["summary_ms"]) == set(STAGES)
        assert value["environment"]["cpu"]
        assert "synthetic" in value["input"]
    assert not server.work.exists()
    assert set(tmp_path.rglob("*")) == before
    assert not list(Path.home().glob("pwned"))


def test_two_artifacts_are_measured_in_turn_on_the_board(server, artifacts, python, tmp_path):
    second = tmp_path / f"-second {artifacts[0].name}"
    shutil.copy(artifacts[0], second)
    pair = [artifacts[0], second]
    out, page = tmp_path / "turn.json", tmp_path / "turn.html"
    options = ["--seconds=0.5", "--threads=1", "--threads=2", f"--json={out}", f"--html={page}", "--host=board"]
    done = subprocess.run(
        [sys.executable, "-m", "edgeclf", "bench", *options, f"--host-python={python}", "--", *pair],
        env={**os.environ, "EDGECLF_SSH_CONFIG": str(server.config)},
        capture_output=True,
        text=True,
        check=False,
        timeout=540,
    )
    assert done.returncode == 0, done.stderr
    assert [(one.artifact, one.threads, one.host) for one in read_measurements(out)] == [
        (file.name, threads, "board") for threads in (1, 2) for file in pair
    ]
    compared = json.loads(out.read_text())["comparisons"]
    assert [(made["base"]["artifact"], made["other"]["artifact"]) for made in compared] == [
        tuple(file.name for file in pair)
    ] * 2
    assert all(made["rounds"] >= MIN_ROUNDS and made["base"]["host"] == "board" for made in compared)
    lines = done.stdout.splitlines()
    assert len([line for line in lines if line.startswith("board: -second") and " against board: -" in line]) == 2
    assert "board: -second" in page.read_text(encoding="utf-8")
    assert not server.work.exists()


def test_a_measurement_goes_on_without_the_link_and_is_fetched_later(server, artifacts, python):
    made = []

    def measure():
        made.extend(bench(server, artifacts, python, seconds=4.0, arguments=(*FEW, "--rate=200")))

    thread = threading.Thread(target=measure)
    thread.start()
    eventually(lambda: list(server.work.glob("run-*/out/began")))
    assert server.drop_links() > 0
    time.sleep(1)
    server.drop_links()
    thread.join(timeout=120)
    assert [one.artifact for one in made] == [file.name for file in artifacts]
    # Nothing was begun anew: samples of the whole time, and one run alone.
    for one in made:
        assert one.wall_ns / 1e9 == pytest.approx(4.0, rel=0.3)
    assert not server.work.exists()


def test_what_the_board_kept_whole_is_not_sent_again(server, artifacts, python, sent):
    told = []
    bench(server, artifacts, python, keep=True, tell=told.append)
    assert len(sent) == len(artifacts) + 1
    assert "kept run-" in told[-1]
    sent.clear()
    bench(server, artifacts, python, keep=True)
    assert sent == []
    torn = min((server.work / "files").iterdir(), key=lambda file: file.stat().st_size)
    torn.unlink()  # a second name of it lies in the run's folder: that one keeps its bytes
    torn.write_bytes(b"torn")
    bench(server, artifacts, python)
    assert len(sent) == 1
    for run in server.work.glob("run-*"):
        subprocess.run(["rm", "-r", run], check=True)
    assert not torn.exists()
    for file in (server.work / "files").iterdir():
        file.unlink()
    (server.work / "files").rmdir()
    server.work.rmdir()


def test_two_hosts_are_measured_in_one_call_but_never_at_once_on_one_board(server, artifacts, python):
    told = []
    made = bench_hosts(
        ["board", "other"],
        artifacts[:1],
        seconds=2.0,
        arguments=FEW,
        host_python=python,
        config=server.config,
        tell=told.append,
    )
    assert made.failures == ()
    assert [one.host for one in made.measurements] == ["board", "other"]
    assert [line for line in told if "waiting, another measurement" in line]
    assert not server.work.exists()


def test_a_host_that_fails_takes_nothing_from_the_others(server, artifacts, python):
    made = bench_hosts(
        ["off", "board", "stranger"],
        artifacts[:1],
        seconds=SHORT_S,
        arguments=FEW,
        host_python=python,
        config=server.config,
    )
    assert [one.host for one in made.measurements] == ["board"]
    assert [name for name, _ in made.failures] == ["off", "stranger"]
    assert all(isinstance(error, DependencyError) for _, error in made.failures)


def test_an_interrupt_ends_the_measurement_and_cleans_up(server, artifacts, python):
    code = (
        "import sys; from pathlib import Path; from edgeclf.benchmarking.remote import bench_hosts\n"
        "bench_hosts(['board'], [Path(sys.argv[1])], seconds=60, host_python=sys.argv[2], config=Path(sys.argv[3]))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, artifacts[0], python, server.config], stderr=subprocess.PIPE, text=True
    ) as child:
        eventually(lambda: list(server.work.glob("run-*/out/began")))
        (pid,) = [int(file.read_text()) for file in server.work.glob("run-*/pid")]
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=60)
    assert "KeyboardInterrupt" in errors
    assert not server.work.exists()
    eventually(lambda: not Path(f"/proc/{pid}/cmdline").exists() or not Path(f"/proc/{pid}/cmdline").read_bytes())


def test_frames_of_a_folder_are_sent_along(server, artifacts, python, tmp_path):
    np = pytest.importorskip("numpy")
    folder = tmp_path / "some frames"
    folder.mkdir()
    for index in range(3):
        np.save(folder / f"{index}.npy", np.full((30 + index, 40, 3), index, np.uint8))
    (taken,) = bench(server, artifacts[:1], python, source=str(folder))
    assert taken.input == "3 frames of folder some frames"


def test_a_host_without_python_is_told_so(server, artifacts):
    with pytest.raises(DependencyError, match=r"(?s)board must have Python 3\.10 .*no such/python3.*--host-python"):
        bench(server, artifacts, "/no such/python3")
    assert not server.work.exists()


def test_a_host_with_a_python_too_old_is_told_so(server, artifacts, tmp_path):
    old = script(tmp_path / "old", """cat > /dev/null; echo '{"python": [3, 6, 9], "executable": "old"}'""")
    with pytest.raises(DependencyError, match=r"is 3\.6\.9; name a newer one"):
        bench(server, artifacts, old)


def test_a_host_without_numpy_or_an_engine_is_told_how_to_install_it(server, artifacts, tmp_path):
    import numpy as np

    bare = script(tmp_path / "bare", f'unset PYTHONPATH; exec {sys.executable} -S "$@"')
    with pytest.raises(DependencyError, match=r"must have NumPy.*-m pip install numpy"):
        bench(server, artifacts, bare)
    packages = tmp_path / "packages"
    packages.mkdir()
    site = Path(np.__file__).parents[1]
    for name in ("numpy", "numpy.libs"):
        if (site / name).exists():
            (packages / name).symlink_to(site / name)
    lean = script(tmp_path / "lean", f'PYTHONPATH={packages} exec {sys.executable} -S "$@"')
    with pytest.raises(
        DependencyError, match=r"must have the engine \S+ in .*is none; run there: .* -m pip install \S"
    ):
        bench(server, artifacts, lean)
    with connected("board", config=server.config) as host:
        board = probe(host, lean)
    assert board.engines == ()
    assert board.machine == os.uname().machine
    assert board.edgeclf_device is None


def test_what_a_login_prints_does_no_harm_to_answers(server, python, tmp_path):
    noisy = script(tmp_path / "noisy", f'echo Welcome; exec "{python.replace("$", chr(92) + "$")}" "$@"')
    with connected("board", config=server.config) as host:
        assert probe(host, noisy).numpy


def test_an_artifact_that_the_board_finds_damaged_is_a_bad_model(server, artifacts, python):
    data = bytearray(artifacts[0].read_bytes())
    data[len(data) // 3] ^= 255
    artifacts[0].write_bytes(data)
    with pytest.raises(ModelError, match="board could not measure; it said"):
        bench(server, artifacts[:1], python)
    assert not server.work.exists()


def test_calls_that_make_no_sense_are_refused_before_any_connection(artifacts):
    with pytest.raises(UsageError, match="named once"):
        bench_hosts(["a", "a"], artifacts)
    with pytest.raises(UsageError, match="named as ssh names it"):
        bench_hosts(["board", "-oProxyCommand=id"], artifacts)
    with pytest.raises(UsageError, match="threads of at least 1"):
        bench_hosts(["a"], artifacts, threads=[0])
    with pytest.raises(UsageError, match="The engines are"):
        bench_hosts(["a"], artifacts, engines=["abacus"])


def test_bench_shows_several_hosts_in_one_table_and_ends_with_the_error_of_the_one_that_failed(
    server, artifacts, python, tmp_path
):
    out, page = tmp_path / "hosts.json", tmp_path / "hosts.html"
    hosts = ["--host=board", "--host=other", "--host=off", f"--host-python={python}"]
    options = ["--seconds=0.2", "--no-cold-start", "--threads=1", f"--json={out}", f"--html={page}"]
    done = subprocess.run(
        [sys.executable, "-m", "edgeclf", "bench", str(artifacts[0]), *hosts, *options],
        env={**os.environ, "EDGECLF_SSH_CONFIG": str(server.config)},
        capture_output=True,
        text=True,
        check=False,
        timeout=540,
    )
    assert done.returncode == DependencyError.exit_code, done.stderr
    assert "off must be reachable by ssh" in done.stderr
    assert [taken.host for taken in read_measurements(out)] == ["board", "other"]
    assert "board: " in done.stdout
    assert "other: " in page.read_text(encoding="utf-8")
    assert max(map(len, done.stdout.splitlines()[:4])) <= 100


def test_explain_is_of_this_machine_alone(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "edgeclf", "bench", str(tmp_path / "a.onnx"), "--host=board", "--explain"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "on the board" in done.stderr) == (UsageError.exit_code, True)

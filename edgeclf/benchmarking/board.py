"""What runs on the board, and nowhere else: this file is sent there as it is and needs Python 3.10 alone.

``python3 - VERB JSON`` prints one JSON object. A link may drop after a verb was done and before its answer came, so
every verb may be said twice. The folder is ${XDG_CACHE_HOME:-~/.cache}/edgeclf-bench: ``files`` holds what was sent, by
SHA-256; ``run-NAME`` is the work of one call of ``edgeclf bench``, and its process holds a lock on the folder while it
measures, so that two never measure at once.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

FORGOTTEN_S = 24 * 3600
"""After this long nobody comes back for a run's folder or for a file in part."""


def root() -> Path:
    """The folder of everything."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(cache) if cache.startswith("/") else Path.home() / ".cache") / "edgeclf-bench"


def prepare(*, run: str, files: list[str]) -> dict[str, Any]:
    """Make the run's folder; say where files go, and which of ``files`` lie there whole."""
    top = root()
    (top / "files").mkdir(parents=True, exist_ok=True)
    _sweep(top)
    (top / run / "out").mkdir(parents=True, exist_ok=True)
    return {"folder": str(top / "files"), "have": [name for name in files if _whole(top / "files" / name)]}


def stage(*, run: str, runtime: str, artifacts: list[list[str]], frames: str | None) -> dict[str, Any]:
    """Put the files to where the run uses them; say which are not there whole, and then do nothing else."""
    top = root()
    given = [runtime, *(digest for digest, _ in artifacts), *([frames] if frames else [])]
    if torn := sorted({name for name in given if not _whole(top / "files" / name)}):
        return {"torn": torn}
    for digest, place in artifacts:
        _link(top / "files" / digest, top / run / place)
    _unpack(top / "files" / runtime, top / run / "runtime")
    if frames:
        _unpack(top / "files" / frames, top / run)
    return {"torn": []}


def start(*, run: str, jobs: list[list[str]], limits_s: list[float]) -> dict[str, Any]:
    """Start measuring in a process that no dropped link ends; started before, it is left alone."""
    folder = root() / run
    try:
        descriptor = os.open(folder / "started", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return {"started": False}
    os.close(descriptor)
    _write(folder / "jobs.json", json.dumps({"jobs": jobs, "limits_s": limits_s}))
    with (folder / "log").open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, str(_program(folder)), "work", json.dumps({"run": run})],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,
            start_new_session=True,
        )
    _write(folder / "pid", str(child.pid))
    return {"started": True}


def work(*, run: str) -> dict[str, Any]:
    """Measure one artifact after the other; the exit code of each is written last."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    folder = root() / run
    todo = json.loads((folder / "jobs.json").read_text())
    runtime = folder / "runtime"
    paths = [str(runtime), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"}
    lock = os.open(root(), os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    _write(folder / "out" / "began", "")
    for number, (arguments, limit_s) in enumerate(zip(todo["jobs"], todo["limits_s"], strict=True)):
        place = folder / "out" / str(number)
        with place.with_suffix(".json").open("wb") as out, place.with_suffix(".err").open("wb") as errors:
            command = [sys.executable, "-m", "edgeclf_device", "bench", "--json", *arguments]
            try:
                code = subprocess.run(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=errors,
                    cwd=runtime,
                    env=environment,
                    timeout=limit_s,
                    check=False,
                ).returncode
            except subprocess.TimeoutExpired:
                code = -int(signal.SIGALRM)
        _write(place.with_suffix(".exit"), str(code))
    return {}


def poll(*, run: str) -> dict[str, Any]:
    """How far the run is: its exit codes so far, whether it waits for another run, whether its process lives."""
    folder = root() / run
    lives = _lives(folder)  # asked first: what it wrote before it ended is then seen
    codes: list[int] = []
    while (file := folder / "out" / f"{len(codes)}.exit").exists():
        codes.append(int(file.read_text()))
    log = _text(folder / "log") if not lives else ""
    return {"codes": codes, "began": (folder / "out" / "began").exists(), "lives": lives, "log": log[-2000:]}


def result(*, run: str, number: int) -> dict[str, Any]:
    """Where a result lies, and what was said on stderr meanwhile."""
    place = root() / run / "out" / str(number)
    return {"file": str(place.with_suffix(".json")), "stderr": _text(place.with_suffix(".err"))[-2000:]}


def clean(*, run: str, files: list[str]) -> dict[str, Any]:
    """End the run's processes and remove its folder and ``files``; folders that are empty then go too."""
    top = root()
    if _lives(top / run):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(int((top / run / "pid").read_text()), signal.SIGKILL)
    shutil.rmtree(top / run, ignore_errors=True)
    for name in files:
        (top / "files" / name).unlink(missing_ok=True)
    for folder in (top / "files", top):
        with contextlib.suppress(OSError):
            folder.rmdir()
    return {"left": (top / run).exists()}


def _program(folder: Path) -> Path:
    """This file, which came with the runtime."""
    return folder / "runtime" / "board.py"


def _lives(folder: Path) -> bool:
    """Whether the run's process lives: a number alone may be another's after a restart of the board."""
    try:
        pid = int((folder / "pid").read_text())
        return os.fsencode(_program(folder)) in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return False


def _sweep(top: Path) -> None:
    old = time.time() - FORGOTTEN_S
    for path in [*top.glob("run-*"), *top.glob("files/*.part")]:
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < old and not _lives(path):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _whole(file: Path) -> bool:
    """Whether ``file``, named by its SHA-256, holds just that."""
    try:
        with file.open("rb") as opened:
            found = hashlib.sha256()
            while block := opened.read(1 << 20):
                found.update(block)
    except OSError:
        return False
    return found.hexdigest() == file.name


def _link(file: Path, place: Path) -> None:
    """``place`` as a second name of ``file``, so that another run which removes the first does no harm."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    try:
        place.hardlink_to(file)
    except OSError:
        shutil.copyfile(file, place)


def _unpack(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(folder)


def _write(file: Path, text: str) -> None:
    """Write a file that appears whole."""
    part = file.with_name(f".{file.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(file)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


VERBS = {verb.__name__: verb for verb in (prepare, stage, start, work, poll, result, clean)}


def main() -> None:
    """Do what is asked and print the answer."""
    try:
        answer = VERBS[sys.argv[1]](**json.loads(sys.argv[2]))
    except OSError as error:
        answer = {"error": f"{error.filename or root()}: {error.strerror or error}"}
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()

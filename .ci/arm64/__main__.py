"""``python .ci/arm64 UV``: edgeclf-device under the processors of a Raspberry Pi 4 and 5, emulated.

Two arm64 systems, Debian bookworm with Python 3.11 and trixie with 3.13, are unpacked under ~/.cache/edgeclf/arm64. In
each, pytest runs tests/arm64 against a reference that is made here on x86-64, and the core of tests/device. Where apt
can't reach its archive nothing runs, and the last line says SKIPPED. On an arm64 machine the core runs as it is.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from debian import CommandError, System, UnreachableError, run, unpacked

ROOT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgeclf" / "arm64"
MIN_QEMU = 10
"""Debian 12's 7.2 crashes both engines, and computes wrong numbers for ``-cpu max``."""

TIMEOUT_S = 1200
CORE = ("preprocess", "quantization", "artifact", "classifier", "verify", "bundle", "ranking", "images", "doctor")
"""Of tests/device, test_NAME.py."""

TOO_SLOW = ("random_images", "photos_of_a_camera", "any_byte_of_the_trailer", "odd_value_anywhere")
"""Words in the names of tests that are left out: tests/arm64 has random images, and parsing is plain Python."""

TOOLS = System(suite="trixie", architecture="amd64", packages=("proot", "qemu-user"))
"""Started by their own loader and C library, so that this machine may be of any release."""

INTERPRETER = "lib64/ld-linux-x86-64.so.2"
LIBRARIES = "usr/lib/x86_64-linux-gnu"


@dataclass(frozen=True, kw_only=True)
class Userland:
    """A board's system."""

    board: str
    suite: str
    python: str
    glibc: str
    cpu: str

    @property
    def system(self) -> System:
        """What is unpacked of it."""
        return System(suite=self.suite, architecture="arm64", packages=("python3", "libstdc++6", "coreutils", "unzip"))

    def __str__(self) -> str:
        return f"{self.board}: {self.cpu}, {self.suite}, Python {self.python}"


USERLANDS = (
    Userland(board="Raspberry Pi 4", suite="bookworm", python="3.11", glibc="2_36", cpu="cortex-a72"),
    Userland(board="Raspberry Pi 5", suite="trixie", python="3.13", glibc="2_40", cpu="cortex-a76"),
)


def tell(line: str) -> None:
    """Say what is going on."""
    print(f"[{time.monotonic() - STARTED:4.0f} s] {line}", file=sys.stderr, flush=True)


def main(uv: Path) -> int:
    """Run everything; 1 where a test fails."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock, tempfile.TemporaryDirectory(prefix="edgeclf-arm64-") as name:
        fcntl.flock(lock, fcntl.LOCK_EX)
        work = Path(name)
        systems = [TOOLS, *(userland.system for userland in USERLANDS)]
        with ThreadPoolExecutor() as pool:
            sites = [pool.submit(install, userland, uv) for userland in USERLANDS]
            wheel = pool.submit(install_own, uv, work / "own")
            tools, *roots = pool.map(lambda system: unpacked(system, CACHE, tell), systems)
            tell(f"unpacked {', '.join(map(str, systems))}; {qemu_version(tools)}")
            wheel.result()
            make_reference(work / "reference")
            tell("made the reference on x86-64")
            tested = [
                pool.submit(test, userland, tools, root, site.result(), work)
                for userland, root, site in zip(USERLANDS, roots, sites, strict=True)
            ]
            codes = [future.result() for future in tested]
    tell("done" if not any(codes) else "failed")
    return int(any(codes))


def qemu_version(tools: Path) -> str:
    """What the emulator says that it is.

    Raises:
        CommandError: it is too old.
    """
    said = run([tools / "usr/bin/qemu-aarch64", "--version"]).splitlines()[0]
    number = re.search(r"version (\d+)", said)
    if number is None or int(number[1]) < MIN_QEMU:
        raise CommandError(f"qemu-user must be {MIN_QEMU} or newer, but it is {said}.")
    return said


def make_reference(folder: Path) -> None:
    """Have the artifacts, images and expected results written by this machine's own processor."""
    run([sys.executable, ROOT / "tests/arm64/make_reference.py", folder])


def platform_options(userland: Userland) -> list[str]:
    """What makes uv install for that board."""
    aarch64 = f"aarch64-manylinux_{userland.glibc}"
    return ["--only-binary", ":all:", "--python-version", userland.python, "--python-platform", aarch64]


def install(userland: Userland, uv: Path) -> Path:
    """The folder of the packages that edgeclf-device and its tests need, in the versions and digests of uv.lock."""
    extras = [f"--extra={extra}" for extra in ("litert", "onnxruntime", "camera")]
    export = ["export", "--quiet", "--frozen", "--no-header", "--no-annotate", "--no-emit-workspace", "--group", "test"]
    wanted = run([uv, *export, "--package", "edgeclf-device", *extras, "--project", ROOT])
    options = platform_options(userland)
    key = hashlib.sha256(repr((wanted, options)).encode()).hexdigest()[:16]
    site = CACHE / f"site-{userland.suite}-{key}"
    if site.is_dir():
        return site
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="installing-") as name:
        requirements, made = Path(name) / "requirements.txt", Path(name) / "site"
        requirements.write_text(wanted, encoding="utf-8")
        pip = [uv, "pip", "install", "--quiet", "--python", sys.executable, *options, "--require-hashes"]
        run([*pip, "--requirement", requirements, "--target", made])
        for old in CACHE.glob(f"site-{userland.suite}-*"):
            shutil.rmtree(old)
        return made.rename(site)


def install_own(uv: Path, folder: Path) -> None:
    """Build the wheel of edgeclf-device, which is the same for every processor, and install it."""
    run([uv, "build", "--quiet", "--package", "edgeclf-device", "--wheel", "--out-dir", folder / "dist", ROOT])
    pip = [uv, "pip", "install", "--quiet", "--python", sys.executable, "--no-deps", "--target", folder / "site"]
    run([*pip, *(folder / "dist").glob("*.whl")])


def test(userland: Userland, tools: Path, root: Path, site: Path, work: Path) -> int:
    """Run the tests in one emulated process and show what it says; its exit code."""
    place = work / userland.suite
    copy_tests(place)
    (place / "tmp").mkdir()
    log, figures, report = place / "log", place / "figures.json", place / "report.xml"
    environment = {
        "PATH": "/usr/bin",
        "LANG": "C.UTF-8",
        "HOME": place,
        "TMPDIR": place / "tmp",
        "PYTHONPATH": work / "own/site",
        "EDGECLF_ARM64_REFERENCE": work / "reference",
        "EDGECLF_ARM64_FIGURES": figures,
    }
    # What proot does not know it hands on as it is: so folders have the same names inside as outside.
    packages = f"{site}:/usr/local/lib/python{userland.python}/dist-packages"
    binds = [f"--bind={name}" for name in ("/dev", "/proc", "/sys", "/etc/passwd", "/etc/group", work, packages)]
    proot = [tools / INTERPRETER, "--library-path", tools / LIBRARIES, tools / "usr/bin/proot"]
    emulator = f"{tools / 'usr/bin/qemu-aarch64'} -cpu {userland.cpu}"
    enter = [*proot, "-q", emulator, "-r", root, *binds, "-w", place]
    tell(f"testing on {userland}")
    with log.open("wb") as out:
        done = subprocess.run(
            [*enter, "/usr/bin/python3", "-m", *pytest_arguments("tests/arm64", f"--junitxml={report}")],
            stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=False, timeout=TIMEOUT_S,
            env={key: str(value) for key, value in environment.items()},
        )  # fmt: skip
    found = json.loads(figures.read_text(encoding="utf-8")) if figures.is_file() else {}
    lines = [f"== {userland}", *(f"   {name}: {value}" for name, value in found.items())]
    print("\n".join(lines), log.read_text(encoding="utf-8", errors="replace"), sep="\n", flush=True)
    # pytest writes its report at the very end: an emulator that died on the way may have left an exit code of 0.
    if not report.is_file():
        tell(f"{userland}: pytest did not come to its end (exit code {done.returncode})")
        return done.returncode or 1
    tell(f"{userland}: pytest ended with {done.returncode}")
    return done.returncode


def copy_tests(place: Path) -> None:
    """The tests alone, so that nothing but the installed package can be imported."""
    for folder in ("device", "arm64"):
        shutil.copytree(ROOT / "tests" / folder, place / "tests" / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "tests/conftest.py", place / "tests")
    shutil.copy(ROOT / "pyproject.toml", place)


def pytest_arguments(*more: str) -> list[str]:
    """Start pytest for the core of tests/device and ``more``."""
    core = [f"tests/device/test_{name}.py" for name in CORE]
    chosen = ["-m", "not slow and not gpu and not tensorflow", "-k", " and ".join(f"not {words}" for words in TOO_SLOW)]
    # The profile "ci" has no deadline, which an emulated processor would not meet, and always the same examples.
    return ["pytest", "-q", "-p", "no:cacheprovider", "--hypothesis-profile=ci", *chosen, *more, *core]


def test_natively() -> int:
    """On an arm64 machine: the core, and tests/arm64 where a reference from x86-64 is at hand."""
    reference = "EDGECLF_ARM64_REFERENCE" in os.environ
    if not reference:
        tell("tests/arm64 are left out: EDGECLF_ARM64_REFERENCE names no folder of make_reference.py from x86-64")
    arguments = pytest_arguments(*(["tests/arm64"] if reference else []))
    return subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, check=False).returncode


STARTED = time.monotonic()
if __name__ == "__main__":
    try:
        code = test_natively() if platform.machine() == "aarch64" else main(Path(sys.argv[1]).absolute())
    except UnreachableError as error:
        print(f"SKIPPED: arm64 was not tested at all, for apt can't reach its archive: {error}", file=sys.stderr)
        code = 0
    except (CommandError, subprocess.TimeoutExpired) as error:
        print(f"make arm64 failed: {error}", file=sys.stderr)
        code = 1
    sys.exit(code)

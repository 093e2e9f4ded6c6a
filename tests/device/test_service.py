"""The systemd unit, and install.sh on boards that are not here: folders and commands that answer like theirs."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
INSTALL = ROOT / "device" / "install"
UNIT = INSTALL / "edgeclf-classify.service"
MAX_EXPOSURE = 2.0

PYTHON = """
case "$2" in
*version_info*) echo {version} ;;
*sys.prefix*) echo /usr ;;
*cv2*) exit {cv2} ;;
*picamera2*) exit {picamera2} ;;
esac
"""
BOOKWORM = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION_CODENAME=bookworm\n'
TRIXIE = 'PRETTY_NAME="Debian GNU/Linux 13 (trixie)"\nVERSION_CODENAME=trixie\n'
JAMMY = 'PRETTY_NAME="Ubuntu 22.04.5 LTS"\nVERSION_CODENAME=jammy\n'


def run(*command: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*map(str, command)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        timeout=600,
        check=False,
    )


def needed(tool: str) -> str:
    """Where the tool is; without it the test is skipped, with a line that says so."""
    found = shutil.which(tool)
    if found is None:
        pytest.skip(f"{tool} is not here, so nothing was checked with it")
    return found


@pytest.fixture
def units(tmp_path):
    """A folder with the unit as it is installed here; its command exists."""
    folder = tmp_path / "units"
    folder.mkdir()
    (folder / UNIT.name).write_text(UNIT.read_text().replace("/opt/edgeclf/bin/edgeclf-device", "/bin/true"))
    return folder


def test_systemd_finds_the_service_well_contained(units):
    done = run(needed("systemd-analyze"), "security", "--offline=true", "--no-pager", units / UNIT.name)
    (exposure,) = re.findall(r"exposure level for \S+: ([0-9.]+)", done.stdout)
    assert float(exposure) <= MAX_EXPOSURE, done.stdout


@pytest.mark.parametrize("more", ["", "jetson.conf", "backoff.conf"])
def test_systemd_understands_every_line(units, more):
    tool = needed("systemd-analyze")
    version = int(run(tool, "--version").stdout.split()[1])
    if more == "backoff.conf" and version < 254:
        pytest.skip(f"systemd {version} is older than 254, which backoff.conf is for")
    if more:
        folder = units / f"{UNIT.name}.d"
        folder.mkdir()
        shutil.copy(INSTALL / more, folder)
    done = run(tool, "verify", UNIT.name, SYSTEMD_UNIT_PATH=f"{units}:")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_takes_its_settings_from_the_file_that_is_installed():
    wanted = set(re.findall(r"\$\{?(EDGECLF_\w+)", UNIT.read_text()))
    given = set(re.findall(r"^(EDGECLF_\w+)=.+", (INSTALL / "classify.env").read_text(), re.MULTILINE))
    assert wanted == given == {"EDGECLF_ARTIFACT", "EDGECLF_SOURCE", "EDGECLF_OPTIONS"}


@pytest.mark.parametrize("script", [INSTALL / "install.sh", ROOT / ".ci" / "wheelhouse"])
def test_shellcheck_has_nothing_to_say(script):
    done = run(needed("shellcheck"), script)
    assert done.stdout == ""


class Board:
    """A root folder and a folder of commands; each answers as on that board."""

    def __init__(self, folder: Path) -> None:
        self.root, self.commands = folder / "root", folder / "commands"
        self.prefix = folder / "opt" / "edgeclf"
        self.commands.mkdir(parents=True)
        self.python()
        for name, answer in {"uname": "aarch64", "getconf": "64", "systemctl": "systemd 252 (252.39)"}.items():
            self.command(name, f"echo '{answer}'")

    def command(self, name: str, script: str) -> None:
        file = self.commands / name
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)

    def python(self, version: str = "3.11", *, cv2: bool = False, picamera2: bool = True) -> None:
        self.command("python3", PYTHON.format(version=version, cv2=int(not cv2), picamera2=int(not picamera2)))

    def files(self, **content: str) -> None:
        names = {"os_release": "etc/os-release", "model": "proc/device-tree/model", "tegra": "etc/nv_tegra_release"}
        for key, text in content.items():
            file = self.root / names[key]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)

    def wheelhouse(self, made_for: str) -> Path:
        folder = self.root.parent / "wheelhouse"
        folder.mkdir()
        (folder / "MADE-FOR").write_text(f"{made_for}\n")
        digest = hashlib.sha256((folder / "MADE-FOR").read_bytes()).hexdigest()
        (folder / "SHA256SUMS").write_text(f"{digest}  MADE-FOR\n")
        return folder

    def install(self, *options: object) -> subprocess.CompletedProcess[str]:
        return run(
            *("sh", INSTALL / "install.sh", "--dry-run", "--prefix", self.prefix, *options),
            EDGECLF_ROOT=str(self.root),
            PATH=f"{self.commands}:{os.environ['PATH']}",
        )


@pytest.fixture
def board(tmp_path):
    made = Board(tmp_path)
    made.files(os_release=BOOKWORM, model="Raspberry Pi 4 Model B Rev 1.5\0")
    return made


def test_a_raspberry_pi_with_bookworm(board):
    done = board.install()
    assert done.returncode == 0, done.stderr
    assert "Raspberry Pi 4 Model B Rev 1.5, Debian GNU/Linux 12 (bookworm), Python 3.11" in done.stdout
    assert f"python3 -m venv --system-site-packages {board.prefix}" in done.stdout
    assert f"{ROOT}/device[litert,camera,web]" in done.stdout
    assert "edgeclf-classify.service" in done.stdout
    assert "backoff.conf" not in done.stdout
    assert "apt-get" not in done.stdout
    assert not board.prefix.exists()
    assert not (board.root / "etc/edgeclf").exists()


def test_a_raspberry_pi_with_trixie_and_without_picamera2(board):
    board.files(os_release=TRIXIE)
    board.python("3.13", picamera2=False)
    board.command("systemctl", "echo 'systemd 257 (257.9-1~deb13u1)'")
    done = board.install()
    assert done.returncode == 0, done.stderr
    assert "apt-get install --yes --no-install-recommends python3-picamera2" in done.stdout
    assert "backoff.conf" in done.stdout


def test_a_jetson_keeps_the_opencv_of_its_system(board):
    board.files(os_release=JAMMY, model="NVIDIA Jetson Orin Nano\0", tegra="# R36 (release), REVISION: 4.3, GCID: 3\n")
    board.python("3.10", cv2=True)
    done = board.install()
    assert done.returncode == 0, done.stderr
    assert "device[litert,web]" in done.stdout
    assert "jetson.conf" in done.stdout
    assert "picamera2" not in done.stdout
    board.python("3.10", cv2=False)
    assert "device[litert,camera,web]" in board.install().stdout


def test_the_user_s_settings_are_never_overwritten(board):
    assert "classify.env" in board.install().stdout
    (board.root / "etc/edgeclf").mkdir()
    (board.root / "etc/edgeclf/classify.env").write_text("EDGECLF_SOURCE=csi:0\n")
    assert f"{INSTALL}/classify.env" not in board.install().stdout


def test_without_a_service_nothing_but_the_environment_is_touched(board):
    done = board.install("--no-service", "--extra", "onnxruntime")
    assert done.returncode == 0
    assert "systemd" not in done.stdout
    assert "device[onnxruntime]" in done.stdout


def test_a_32_bit_system_is_refused(board):
    board.command("uname", "echo armv7l")
    assert_refused(board.install(), "this one is armv7l", "Raspberry Pi OS (64-bit)")
    board.command("uname", "echo aarch64")
    board.command("getconf", "echo 32")
    assert_refused(board.install(), "the system is 32-bit", "Raspberry Pi OS (64-bit)")


@pytest.mark.parametrize("version", ["3.8", "3.9", "3.14"])
def test_a_python_that_is_too_old_or_too_new_is_refused(board, version):
    board.python(version)
    assert_refused(board.install(), f"python3 is {version}", "--python")


def test_a_full_card_is_refused(board):
    board.command("df", "echo header; echo /dev/root 30000000 29800000 200000 99% /")
    assert_refused(board.install(), "195 are free", "--prefix")


def test_jetpack_4_is_refused(board):
    board.files(tegra="# R32 (release), REVISION: 7.4, GCID: 1\n")
    assert_refused(board.install(), "JetPack 4", "JetPack 5 or 6")


def test_a_folder_with_something_else_in_it_is_refused(board):
    board.prefix.mkdir(parents=True)
    (board.prefix / "thesis.odt").touch()
    assert_refused(board.install(), "holds something else", "--prefix")


def test_an_unknown_option_is_refused(board):
    assert_refused(board.install("--wheels"), "no option --wheels", "")


def test_a_wheelhouse_is_installed_without_internet(board):
    done = board.install("--wheelhouse", board.wheelhouse("aarch64 3.11 litert"))
    assert done.returncode == 0, done.stderr
    assert "--no-index --find-links" in done.stdout
    assert "edgeclf-device[litert]" in done.stdout


def test_a_wheelhouse_for_another_board_or_a_damaged_one_is_refused(board):
    folder = board.wheelhouse("aarch64 3.13 litert")
    assert_refused(board.install("--wheelhouse", folder), "Python 3.13", "make wheelhouse ARCH=aarch64 PY=3.11")
    (folder / "MADE-FOR").write_text("aarch64 3.11 litert\n")
    assert_refused(board.install("--wheelhouse", folder), "damaged", "copy it again")


def assert_refused(done: subprocess.CompletedProcess[str], *said: str) -> None:
    assert done.returncode == 1
    assert "would run" not in done.stdout
    for part in said:
        assert part in done.stderr


@pytest.mark.slow
def test_a_wheelhouse_is_made_copied_installed_and_classifies(tmp_path, tiny):
    """The whole road of a board without internet, for this machine's own architecture and Python."""
    if not (ROOT / ".uv/bin/uv").exists():
        pytest.skip("no .uv: run `make install`")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    house, prefix = tmp_path / "house", tmp_path / "edgeclf"
    made = run(
        *(ROOT / ".ci/wheelhouse", ROOT / ".uv/bin/uv", ROOT / ".uv/bin/pip", platform.machine(), version, "litert"),
        house,
    )
    assert made.returncode == 0, made.stderr
    assert "complete for" in made.stdout
    for _ in range(2):  # again does no harm
        done = run(
            *("sh", house / "install.sh", "--no-service", "--prefix", prefix, "--python", sys.executable),
            PIP_INDEX_URL="http://127.0.0.1:9/",
        )
        assert done.returncode == 0, done.stderr
    frame = tmp_path / "frame.npy"
    np.save(frame, np.zeros((48, 64, 3), np.uint8))
    artifact = tiny.write(tmp_path, "w8a8.tflite")
    classified = run(prefix / "bin/edgeclf-device", "classify", artifact, "--source", frame, "--json-lines", "-")
    assert json.loads(classified.stdout)["label"] in tiny.labels

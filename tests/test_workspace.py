"""The three distributions as one: versions, pins, the lock, and what the packages promise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import tomllib

ROOT = Path(__file__).parents[1]
PROJECTS = {
    name: tomllib.loads((ROOT / name / "pyproject.toml").read_text()) for name in (".", "device", "calibration")
}


def test_the_three_have_one_version_and_pin_each_other_to_it():
    versions = {project["project"]["version"] for project in PROJECTS.values()}
    assert len(versions) == 1
    (version,) = versions
    for project in PROJECTS.values():
        extras = project["project"].get("optional-dependencies", {}).values()
        for requirement in [*project["project"]["dependencies"], *(one for extra in extras for one in extra)]:
            if requirement.startswith(("edgeclf-device", "edgeclf-calibration")):
                assert requirement.endswith(f"=={version}"), requirement
    code = "import edgeclf, edgeclf_device; print(edgeclf.__version__, edgeclf_device.__version__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("edgeclf itself is not installed here")
    assert done.stdout.split() == [version, version]


def test_the_device_needs_numpy_alone():
    assert [one.split(">")[0] for one in PROJECTS["device"]["project"]["dependencies"]] == ["numpy"]


def test_the_lock_holds_numpy_2_for_python_3_11():
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    versions = [package["version"] for package in lock["package"] if package["name"] == "numpy"]
    assert versions
    assert all(version.startswith("2.") for version in versions), versions


def test_nothing_names_a_gui_build_of_opencv():
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    names = {package["name"] for package in lock["package"]}
    assert "opencv-python" not in names
    assert "opencv-python-headless" in names


def test_public_names_exist():
    edgeclf = pytest.importorskip("edgeclf")
    import edgeclf_device

    for name in edgeclf_device.__all__:
        assert hasattr(edgeclf_device, name), name
    verbs = {
        "bench",
        "compare",
        "evaluate",
        "export",
        "export_file",
        "fetch",
        "parity",
        "recommend",
        "review",
        "robustness",
        "study",
        "train",
        "verify",
    }
    assert set(edgeclf.__all__) == {"__version__", *verbs}
    for name in edgeclf.__all__:
        assert getattr(edgeclf, name) is not None

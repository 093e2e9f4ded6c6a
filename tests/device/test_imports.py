from __future__ import annotations

import importlib.metadata

import pytest

import edgeclf_device

FORBIDDEN = (
    "cv2",
    "ai_edge_litert",
    "onnxruntime",
    "onnx",
    "typer",
    "rich",
    "PIL",
    "tensorflow",
    "keras",
    "google",
    "matplotlib",
)
REPORT = f"import sys; print([name for name in {FORBIDDEN!r} if name in sys.modules])"


def test_importing_the_package_imports_numpy_alone(child):
    done = child(f"import edgeclf_device, edgeclf_device.cli\n{REPORT}")
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_inspect_imports_neither_engine_nor_opencv(child, kind, artifact):
    code = f"import sys; from edgeclf_device.cli import main\nassert main(['inspect', sys.argv[1]]) == 0\n{REPORT}"
    done = child(code, artifact)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_nothing_outside_the_standard_library_and_numpy_is_imported(child):
    code = (
        "import sys, edgeclf_device.cli\n"
        "tops = {name.partition('.')[0] for name in sys.modules}\n"
        "mine = {*sys.stdlib_module_names, 'numpy', 'edgeclf_device', '__main__', 'sitecustomize'}\n"
        "mine.add('cython_runtime')  # of NumPy 1\n"
        "print(sorted(name for name in tops - mine if not name.startswith(('_', 'distutils'))))\n"
    )
    done = child(code)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_every_public_name_is_there():
    for name in edgeclf_device.__all__:
        assert getattr(edgeclf_device, name) is not None
    assert sorted(edgeclf_device.__all__) == edgeclf_device.__all__


def test_the_version_is_the_distribution_s():
    try:
        installed = importlib.metadata.version("edgeclf-device")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("run from the source tree")
    assert edgeclf_device.__version__ == installed

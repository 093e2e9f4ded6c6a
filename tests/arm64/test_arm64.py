"""The same bytes and scores as on x86-64; ``make arm64`` runs this under emulated processors of the boards."""

from __future__ import annotations

import json
import os
import platform
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from arm64_cases import digest, frames, prepare_cases

from edgeclf_device import Classifier, load, prepare, read_artifact
from edgeclf_device.doctor import examine, healthy
from edgeclf_device.verify import verify

pytestmark = pytest.mark.arm64

BOUNDS = {
    "fp32.tflite": 1e-6, "fp16.tflite": 1e-6, "w8a32.tflite": 1e-2,
    "fp32.onnx": 1e-6, "fp16.onnx": 2e-2, "w8a32.onnx": 1e-6,
}  # fmt: skip
"""Largest difference of a score from x86-64's. Where weights alone are small, float32 is computed with. ONNX Runtime
computes fp16 in float16 where the processor can (Cortex-A76, not A72), and LiteRT rounds the activations of w8a32."""

LSB = 1 / 256
"""One step of w8a8 scores, where the graph ends in float32."""

KINDS = [
    *(
        f"lite0-{scheme}.{container}"
        for scheme in ("fp32", "fp16", "w8a32", "w8a8")
        for container in ("tflite", "onnx")
    ),
    *(f"tiny-{scheme}.{container}" for scheme in ("fp32", "w8a8") for container in ("tflite", "onnx")),
]


@pytest.fixture(scope="session")
def folder() -> Path:
    """What make_reference.py wrote on x86-64."""
    if "EDGECLF_ARM64_REFERENCE" not in os.environ:
        pytest.fail("these tests need what make_reference.py writes on x86-64; run: make arm64")
    return Path(os.environ["EDGECLF_ARM64_REFERENCE"])


@pytest.fixture(scope="session")
def reference(folder):
    return json.loads((folder / "reference.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def figures():
    """What was found, written for the people who read the log."""
    found: dict[str, str] = {}
    yield found
    if file := os.environ.get("EDGECLF_ARM64_FIGURES"):
        Path(file).write_text(json.dumps(found), encoding="utf-8")


def test_this_is_an_arm64_userland():
    assert platform.machine() == "aarch64"


@pytest.mark.parametrize("backend", ["numpy", "cv2"])
def test_prepare_gives_the_bytes_of_x86_64(reference, figures, backend):
    expected = dict(reference["prepare"])
    other = []
    for case in prepare_cases():
        image, result = expected.pop(case.name)
        assert digest(case.image) == image, f"{case.name}: the image itself differs"
        if digest(prepare(case.image, case.spec, color=case.color, backend=backend)) != result:
            other.append(case.name)
    assert not expected
    figures[f"prepare, {backend}"] = f"{len(reference['prepare'])} cases equal on every byte"
    assert not other, f"{len(other)} of {len(reference['prepare'])} differ: {other[:10]}"


def test_files_are_decoded_to_the_bytes_of_x86_64(folder, reference, figures):
    found = {file.name: digest(load(file)) for file in sorted((folder / "images").iterdir())}
    suffixes = Counter(Path(name).suffix[1:] for name in found)
    figures["decoded"] = ", ".join(f"{count} {suffix}" for suffix, count in suffixes.items()) + " equal on every byte"
    assert found == reference["decode"]


def test_every_artifact_of_x86_64_is_compared(folder, reference):
    assert sorted(reference["scores"]) == sorted(KINDS)
    assert sorted(file.name for file in (folder / "artifacts").glob("*-*.*")) == sorted(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_an_artifact_of_x86_64_verifies(folder, kind):
    verification = verify(folder / "artifacts" / kind)
    assert len(verification.checks) == 5
    assert {check.outcome for check in verification.checks} == {"ok"}


@pytest.mark.parametrize("kind", KINDS)
def test_an_artifact_scores_as_on_x86_64(folder, reference, figures, kind):
    path = folder / "artifacts" / kind
    manifest = read_artifact(path).manifest
    expected = np.array(reference["scores"][kind], np.float32)
    with Classifier.open(path, threads=1) as classify:
        found = np.array([classify(frame).scores for frame in frames(folder / "images")])
    difference = np.abs(found.astype(np.float64) - expected).max()
    if manifest.scheme == "w8a8":
        quantization = manifest.outputs[0].quantization
        steps = difference / (LSB if quantization is None else quantization.scale)
        figures[kind] = f"{steps:.3g} LSB at most in {found.size} scores"
        assert steps < 1.001
    else:
        figures[kind] = f"{difference:.1e} at most in {found.size} scores"
        assert difference <= BOUNDS[kind.partition("-")[2]]
    assert np.array_equal(found.argmax(axis=1), expected.argmax(axis=1))
    assert len(set(expected.argmax(axis=1))) > 1, "the frames must not all have one label"


def test_the_doctor_finds_nothing_wrong(figures):
    findings = examine()
    by_subject = {finding.subject: finding for finding in findings}
    assert healthy(findings)
    assert "aarch64" in by_subject["architecture"].detail
    for subject in ("architecture", "Python", "NumPy", "engine litert", "engine onnxruntime", "OpenCV"):
        assert by_subject[subject].level == "ok", by_subject[subject]
        figures[f"doctor, {subject}"] = by_subject[subject].detail

from __future__ import annotations

import signal

import pytest

from edgeclf_device import doctor
from edgeclf_device.engines import MODULES
from edgeclf_device.engines.probe import probe


def by_subject(findings):
    return {finding.subject: finding for finding in findings}


@pytest.mark.parametrize("engine", MODULES)
def test_an_installed_engine_really_runs_a_model(engine):
    pytest.importorskip({"litert": "ai_edge_litert", "onnxruntime": "onnxruntime"}[engine])
    assert probe(engine).startswith(engine)


def test_this_machine_is_examined():
    findings = doctor.examine()
    subjects = by_subject(findings)
    assert {"architecture", "Python", "NumPy", "OpenCV", "disk", *(f"engine {name}" for name in MODULES)} <= set(
        subjects
    )
    assert all(finding.remedy for finding in findings if finding.level != "ok")
    assert subjects["Python"].level == "ok"


def test_a_machine_without_any_engine_has_a_problem(monkeypatch):
    monkeypatch.setattr(doctor, "installed", lambda name: False)
    findings = doctor.examine()
    assert not doctor.healthy(findings)
    assert 'pip install "edgeclf-device[litert]"' in by_subject(findings)["engine litert"].remedy


def test_an_engine_that_dies_in_its_child_process_becomes_a_sentence(monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(doctor, "_PROBE", "import os, signal; os.kill(os.getpid(), signal.SIGILL)  # {engine}")
    finding = by_subject(doctor.examine())["engine onnxruntime"]
    assert "illegal instruction" in finding.detail
    assert finding.level == "problem"


def test_a_crash_and_an_exception_are_told_apart():
    assert "SIGSEGV" in doctor.explain_death(-signal.SIGSEGV, "", "pip install x")[0]
    detail, remedy = doctor.explain_death(1, "Traceback\nImportError: numpy.core failed\n", "pip install x")
    assert "numpy.core failed" in detail
    assert "pip install x" in remedy


def test_low_memory_is_said_with_its_remedy(monkeypatch):
    monkeypatch.setattr(doctor, "_available_mib", lambda: 20)
    (finding,) = doctor._memory()
    assert finding.level == "note"
    assert "20 MiB" in finding.detail
    assert finding.remedy

from __future__ import annotations

import errno
import json
import os
import signal
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edgeclf_device import doctor
from edgeclf_device.doctor import cameras, machine, software
from edgeclf_device.doctor.finding import Finding, explain_death
from edgeclf_device.engines import MODULES, PACKAGES
from edgeclf_device.engines.probe import probe
from edgeclf_device.health import Health

CAPTURE, STREAMING, META, DEVICE_CAPS = 0x1, 0x04000000, 0x00800000, 0x80000000
WELL = Health(
    temperature_c=45.0, throttled=(), frequency_mhz=1500.0, governor="performance", load_1_min=0.1, free_memory_mib=900
)


def by_subject(findings):
    return {finding.subject: finding for finding in findings}


def answer(driver: str, card: str, of_all: int, of_node: int) -> bytes:
    """What VIDIOC_QUERYCAP gives, laid out by hand."""
    names = driver.encode().ljust(16, b"\0") + card.encode().ljust(32, b"\0") + b"usb-1.2".ljust(32, b"\0")
    return names + struct.pack("=III", 0x060100, of_all, of_node) + bytes(12)


@pytest.mark.parametrize("engine", MODULES)
def test_an_installed_engine_really_runs_a_model(engine):
    pytest.importorskip(PACKAGES[engine])
    assert probe(engine).startswith(engine)


def test_this_machine_is_examined():
    findings = doctor.examine()
    subjects = by_subject(findings)
    assert {"architecture", "glibc", "Python", "NumPy", "OpenCV", "memory", "disk"} <= set(subjects)
    assert {f"engine {name}" for name in MODULES} <= set(subjects)
    assert all(finding.remedy for finding in findings if finding.level != "ok")
    assert subjects["Python"].level == "ok"
    assert json.loads(json.dumps([finding.to_json() for finding in findings]))[0]["subject"] == "architecture"


def test_a_machine_without_any_engine_has_a_problem(monkeypatch):
    monkeypatch.setattr(software, "installed", lambda name: False)
    findings = doctor.examine()
    assert not doctor.healthy(findings)
    assert 'pip install "edgeclf-device[litert]"' in by_subject(findings)["engine litert"].remedy


def test_an_engine_that_dies_in_its_child_process_becomes_a_sentence(monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(software, "_PROBE", "import os, signal; os.kill(os.getpid(), signal.SIGILL)  # {engine}")
    finding = by_subject(software.examine_software())["engine onnxruntime"]
    assert "illegal instruction" in finding.detail
    assert finding.level == "problem"


def test_a_gpu_that_onnx_runtime_can_t_use_is_said_with_its_remedy(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime is built for GPUs")
    assert "provider cuda" not in by_subject(software.examine_software(tmp_path))
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidiactl").touch()
    for name in ("cuda", "tensorrt"):
        finding = by_subject(software.examine_software(tmp_path))[f"provider {name}"]
        assert finding.level == "note"
        assert "CPUExecutionProvider alone" in finding.detail
        assert "edgeclf-device[onnxruntime-gpu]" in finding.remedy


def test_a_crash_and_an_exception_are_told_apart():
    assert "SIGSEGV" in explain_death(-signal.SIGSEGV, "", "pip install x")[0]
    detail, remedy = explain_death(1, "Traceback\nImportError: numpy.core failed\n", "pip install x")
    assert "numpy.core failed" in detail
    assert "pip install x" in remedy


def test_numpy_2_beside_tflite_runtime_is_said_with_its_remedy(monkeypatch):
    monkeypatch.setattr(software, "MODULES", {"tflite-runtime": "…"})
    monkeypatch.setattr(software, "installed", lambda name: True)
    monkeypatch.setattr(np, "__version__", "2.4.6")
    assert '"numpy<2"' in software._numpy().remedy
    monkeypatch.setattr(np, "__version__", "1.26.4")
    assert software._numpy().level == "ok"


@pytest.mark.parametrize(
    ("library", "level"), [(("glibc", "2.36"), "ok"), (("glibc", "2.27"), "note"), (("", ""), "note")]
)
def test_a_c_library_too_old_for_the_packages_is_noticed(monkeypatch, library, level):
    monkeypatch.setattr(software.platform, "libc_ver", lambda: library)
    assert software._glibc().level == level


def test_low_memory_and_swap_in_use_are_said_with_their_remedies():
    low, swap = machine._memory({"MemAvailable": 20, "SwapTotal": 200, "SwapFree": 50})
    assert "20 MiB" in low.detail
    assert "150 MiB of 200" in swap.detail
    assert low.remedy
    assert swap.remedy
    (fine,) = machine._memory({"MemAvailable": 2000, "SwapTotal": 200, "SwapFree": 200})
    assert fine.level == "ok"


def test_under_voltage_names_the_supply_and_heat_names_the_fan(monkeypatch):
    said = ("under-voltage now", "throttled has occurred")
    hot = Health(**{**vars(WELL), "throttled": said, "temperature_c": 84.2, "governor": "ondemand"})
    found = by_subject([*machine._throttling(hot), *machine._temperature(hot), *machine._governor(hot)])
    assert found["throttling"].detail == "under-voltage now, throttled has occurred"
    assert "power supply" in found["throttling"].remedy
    assert "fan" in found["throttling"].remedy
    assert found["temperature"].level == "note"
    assert "echo performance" in found["governor"].remedy
    fine = [*machine._throttling(WELL), *machine._temperature(WELL), *machine._governor(WELL)]
    assert [finding.level for finding in fine] == ["ok"] * 3


def test_every_word_of_the_health_has_its_remedy():
    from edgeclf_device.health import THROTTLE_CAUSES

    assert set(THROTTLE_CAUSES.values()) <= set(machine._THROTTLE_REMEDIES)


def test_a_clock_that_was_never_set_is_noticed(tmp_path):
    assert list(machine._clock(tmp_path)) == []
    (tmp_path / "run/systemd/timesync").mkdir(parents=True)
    (finding,) = machine._clock(tmp_path)
    assert finding.remedy
    (tmp_path / "run/systemd/timesync/synchronized").touch()
    assert list(machine._clock(tmp_path)) == []


def test_a_webcam_is_told_from_its_metadata_node_and_from_a_codec():
    camera = cameras.capability(answer("uvcvideo", "HD Webcam", CAPTURE | META | DEVICE_CAPS, CAPTURE | STREAMING))
    assert (camera.driver, camera.card, camera.captures) == ("uvcvideo", "HD Webcam", True)
    assert not cameras.capability(answer("uvcvideo", "HD Webcam", CAPTURE | META | DEVICE_CAPS, META)).captures
    assert not cameras.capability(answer("bcm2835-codec", "decode", 0x4000 | DEVICE_CAPS, 0x4000)).captures
    assert cameras.capability(answer("old", "Old Camera", CAPTURE, 0)).captures


def examined(monkeypatch, root, answers):
    """The findings on nodes that answer so; an OSError is raised."""

    def query(path):
        said = answers[path.name]
        if isinstance(said, OSError):
            raise said
        return cameras.capability(said)

    monkeypatch.setattr(cameras, "_query", query)
    (root / "dev").mkdir(exist_ok=True)
    for name in answers:
        (root / "dev" / name).touch()
    return by_subject(cameras.examine_cameras(root))


def test_cameras_are_found_and_what_is_none_is_left_out(monkeypatch, tmp_path):
    node = CAPTURE | STREAMING
    found = examined(
        monkeypatch,
        tmp_path,
        {
            "video0": answer("uvcvideo", "HD Webcam", node, 0),
            "video1": answer("uvcvideo", "HD Webcam", META, 0),
            "video2": answer("rp1-cfe", "rp1-cfe", node, 0),
            "video3": answer("rp1-cfe", "rp1-cfe", node, 0),
            "video14": answer("bcm2835-isp", "bcm2835-isp", node, 0),
        },
    )
    assert set(found) == {"camera /dev/video0", "camera rp1-cfe"}
    assert "picamera2:" in found["camera rp1-cfe"].detail


def test_a_group_without_a_name_is_told_by_its_number(monkeypatch, tmp_path):
    def unknown(number):
        raise KeyError(number)

    monkeypatch.setattr("grp.getgrgid", unknown)
    assert cameras._group(tmp_path) == (str(tmp_path.stat().st_gid), [])


def test_a_camera_that_may_not_be_opened_says_which_group_may(monkeypatch, tmp_path):
    found = examined(monkeypatch, tmp_path, {"video0": PermissionError(errno.EACCES, "Permission denied")})
    finding = found["camera /dev/video0"]
    assert finding.level == "note"
    assert "usermod -aG" in finding.remedy
    monkeypatch.setattr(cameras, "_user", lambda: "pi")
    monkeypatch.setattr(cameras, "_group", lambda path: ("video", ["pi"]))
    found = examined(monkeypatch, tmp_path, {"video0": PermissionError(errno.EACCES, "Permission denied")})
    assert "Log out" in found["camera /dev/video0"].remedy


def test_a_camera_that_is_busy_or_gone_is_said(monkeypatch, tmp_path):
    found = examined(
        monkeypatch,
        tmp_path,
        {"video0": OSError(errno.EBUSY, "busy"), "video2": OSError(errno.ENODEV, "No such device")},
    )
    assert "fuser" in found["camera /dev/video0"].remedy
    assert "No such device" in found["camera /dev/video2"].detail


def test_who_holds_a_device_is_found():
    """Of this process's own kind: a child that holds /dev/full open stands for a program that holds a camera."""
    with Path("/dev/full").open("rb") as device:
        child = subprocess.Popen(["sleep", "60"], stdin=device)
    try:
        assert f"sleep (process {child.pid})" in cameras._holders(Path("/dev/full"), Path("/"))
    finally:
        child.kill()
        child.wait()


def test_a_machine_without_a_camera_says_that_one_need_not_be_there(tmp_path):
    (finding,) = cameras.examine_cameras(tmp_path)
    assert finding.level == "note"
    assert "videos and streams need none" in finding.remedy


def test_a_raspberry_pi_without_picamera2_and_a_jetson_without_its_daemon(monkeypatch, tmp_path):
    monkeypatch.setattr(cameras.importlib.util, "find_spec", lambda name: None)
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "proc/device-tree/model").write_text("Raspberry Pi 5 Model B Rev 1.0\0")
    assert "python3-picamera2" in by_subject(cameras.examine_cameras(tmp_path))["picamera2"].remedy
    (tmp_path / "proc/device-tree/model").write_text("NVIDIA Jetson Orin Nano\0")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nv_tegra_release").touch()
    assert by_subject(cameras.examine_cameras(tmp_path))["nvargus-daemon"].level == "note"
    (tmp_path / "proc/812").mkdir()
    (tmp_path / "proc/812/comm").write_text("nvargus-daemon\n")
    assert by_subject(cameras.examine_cameras(tmp_path))["nvargus-daemon"].level == "ok"


def test_a_ribbon_without_a_camera_is_not_ok(monkeypatch):
    monkeypatch.setattr(cameras.importlib.util, "find_spec", lambda name: name)
    said = Finding(subject="picamera2", level="ok", detail="no camera found: cameras on the ribbon cable")
    monkeypatch.setattr(cameras, "in_child", lambda *_: said)
    assert cameras._picamera2().level == "note"


def test_somebody_without_a_name_has_a_number(monkeypatch):
    def nobody():
        raise KeyError("no such uid")

    monkeypatch.setattr(cameras.getpass, "getuser", nobody)
    assert cameras._user() == str(os.getuid())

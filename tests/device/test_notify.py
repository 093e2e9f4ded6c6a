"""The notification protocol against a real datagram socket, as systemd holds one."""

from __future__ import annotations

import os
import socket
from contextlib import suppress

import pytest

from edgeclf_device import notify as module
from edgeclf_device.notify import Watchdog, notify


@pytest.fixture(params=["a file", "an abstract name"])
def manager(request, tmp_path):
    """(socket, the address as NOTIFY_SOCKET has it)."""
    abstract = request.param == "an abstract name"
    address = f"@edgeclf-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(address.replace("@", "\0", 1) if abstract else address)
        listening.setblocking(False)
        yield listening, address


def received(listening: socket.socket) -> list[str]:
    messages = []
    with suppress(BlockingIOError):
        while True:
            messages.append(listening.recv(4096).decode())
    return messages


@pytest.fixture
def clock(monkeypatch):
    now_ns = [10**12]
    monkeypatch.setattr(module, "monotonic_ns", lambda: now_ns[0])
    return now_ns


def test_the_manager_hears_that_the_service_is_ready(manager):
    listening, address = manager
    assert notify("READY=1", "STATUS=Ärger ohne Ende", environment={"NOTIFY_SOCKET": address})
    assert received(listening) == ["READY=1\nSTATUS=Ärger ohne Ende"]


def test_without_a_manager_nothing_happens():
    assert not notify("READY=1", environment={})
    Watchdog({}).beat()


def test_a_manager_that_went_away_stops_nothing(tmp_path):
    assert not notify("STOPPING=1", environment={"NOTIFY_SOCKET": str(tmp_path / "gone")})


def test_the_environment_of_the_process_is_used(manager, monkeypatch):
    listening, address = manager
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert notify("READY=1")
    assert received(listening) == ["READY=1"]


def test_beats_come_three_times_in_the_interval_however_many_frames_there_are(manager, clock):
    listening, address = manager
    environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}
    watchdog = Watchdog(environment)
    for _ in range(900):  # 30 s at 30 fps
        watchdog.beat()
        clock[0] += 33_333_333
    assert received(listening) == ["WATCHDOG=1"] * 3


def test_a_beat_that_was_not_heard_is_said_again_at_the_next_frame(manager, clock, monkeypatch):
    listening, address = manager
    watchdog = Watchdog({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "30000000"})
    heard = module.notify
    monkeypatch.setattr(module, "notify", lambda *_, **__: False)
    watchdog.beat()
    monkeypatch.setattr(module, "notify", heard)
    clock[0] += 1
    watchdog.beat()
    assert received(listening) == ["WATCHDOG=1"]


def test_a_watchdog_that_waits_for_another_process_gets_no_beats(manager):
    listening, address = manager
    Watchdog({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}).beat()
    assert received(listening) == []


def test_a_full_queue_does_not_hold_the_service_up(manager):
    _, address = manager
    sent = [notify("STATUS=" + "x" * 1000, environment={"NOTIFY_SOCKET": address}) for _ in range(2000)]
    assert sent[0]
    assert not sent[-1]

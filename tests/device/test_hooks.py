"""Hooks against real programs and a real MQTT broker on 127.0.0.1."""

from __future__ import annotations

import asyncio
import json
import queue
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from edgeclf_device import DependencyError, UsageError
from edgeclf_device.classifier import Reading, Result
from edgeclf_device.decisions import Decision
from edgeclf_device.hooks import WAITING, CommandHook, parse_command
from edgeclf_device.mqtt import MqttAddress, MqttHook, open_mqtt, parse_mqtt
from edgeclf_device.sources import Frame
from edgeclf_device.streaming import Event

PATIENCE_S = 60
LABELS = ("Riß; $(touch pwned)", "b")


def event(label="b", *, changed=True, index=0):
    return Event(
        frame=Frame(
            image=np.zeros((2, 2, 3), np.uint8),
            color="rgb",
            index=index,
            name=f"frame {index}",
            capture_ms=1.0,
            captured_ns=time.monotonic_ns(),
        ),
        result=Result(
            label=label or "b",
            score=0.75,
            accepted=label is not None,
            output=np.array([0.25, 0.75], np.float32),
            reading=Reading(labels=LABELS),
            spent_ns=(1, 1, 1),
        ),
        decision=Decision(label=label, score=0.75, changed=changed, since_ns=0),
        age_ms=2.0,
        total_ms=1.0,
    )


def until(condition, what="it"):
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen"
        time.sleep(0.01)


def texts(hook):
    return [note.text for note in hook.take_notes()]


def python(code, *arguments):
    return [sys.executable, "-c", code, *map(str, arguments)]


RECORD = """
import json, os, sys
record = [sys.stdin.read(), os.environ["EDGECLF_LABEL"], os.environ["EDGECLF_SCORE"], sys.argv[2:]]
open(sys.argv[1], "a").write(json.dumps(record) + "\\n")
"""


def records(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_program_gets_the_event_on_stdin_and_the_label_in_its_environment(tmp_path):
    with CommandHook(python(RECORD, tmp_path / "out", "{label}", "score={score}")) as hook:
        hook(event(LABELS[0]))
    ((line, label, score, arguments),) = records(tmp_path / "out")
    assert label == LABELS[0]
    assert score == "0.75"
    assert arguments == [LABELS[0], "score=0.75"]
    assert line.endswith("\n")
    assert json.loads(line)["decision"]["label"] == LABELS[0]
    assert hook.take_notes() == []


def test_no_shell_sees_a_label(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with CommandHook(["echo", "{label}; touch pwned"]) as hook:
        hook(event(LABELS[0]))
    assert list(tmp_path.iterdir()) == []


def test_a_program_runs_for_changes_alone_in_their_order_and_the_last_before_the_end_too(tmp_path):
    with CommandHook(python(RECORD, tmp_path / "out")) as hook:
        for index in range(9):
            hook(event(index=index, changed=index % 3 == 0))
    assert [json.loads(line)["index"] for line, *_ in records(tmp_path / "out")] == [0, 3, 6]


def test_no_label_is_an_empty_variable_and_null(tmp_path):
    with CommandHook(python(RECORD, tmp_path / "out")) as hook:
        hook(event(None))
    ((line, label, *_),) = records(tmp_path / "out")
    assert label == ""
    assert json.loads(line)["decision"]["label"] is None


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (python("raise SystemExit(7)"), "exit code 7"),
        (python("import os; os.kill(os.getpid(), 9)"), "SIGKILL"),
        (["/nowhere/program"], "can't be started"),
        (["/"], "can't be started"),
    ],
)
def test_a_program_that_fails_is_a_note_and_the_next_change_runs_again(argv, expected):
    with CommandHook(argv) as hook:
        hook(event())
        hook(event())
    notes = texts(hook)
    assert len(notes) == 2
    assert all(expected in note for note in notes)


def test_a_label_that_no_program_can_take_is_a_note():
    with CommandHook(["true", "{label}"]) as hook:
        hook(event("a\0b"))
    assert "can't be started" in texts(hook)[0]


def test_a_program_that_reads_nothing_and_closes_its_stdin_is_served(tmp_path):
    with CommandHook(python("import os; os.close(0)")) as hook:
        hook(event())
    assert texts(hook) == []


ENDLESS = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open(sys.argv[1] + ".new", "w").write(f"{os.getpid()} {child.pid}")
os.rename(sys.argv[1] + ".new", sys.argv[1])
time.sleep(600)
"""


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_program_that_never_ends_is_killed_with_its_children(tmp_path):
    with CommandHook(python(ENDLESS, tmp_path / "pids"), timeout_s=3) as hook:
        hook(event())
        until((tmp_path / "pids").exists)
        pids = (tmp_path / "pids").read_text().split()
        until(lambda: all(map(gone, pids)), "the end of the program and its child")
    assert "more than 3 s and was killed" in texts(hook)[0]


def test_an_exception_does_not_wait_for_a_program_that_runs(tmp_path):
    begin = []

    def interrupted(hook):
        hook(event())
        hook(event())
        until((tmp_path / "pids").exists)
        begin.append(time.monotonic())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), CommandHook(python(ENDLESS, tmp_path / "pids"), timeout_s=600) as hook:
        interrupted(hook)
    assert time.monotonic() - begin[0] < 60
    assert all(map(gone, (tmp_path / "pids").read_text().split()))


def test_inference_never_waits_for_a_slow_program_and_the_newest_changes_are_kept(tmp_path):
    slow = f"import time\n{RECORD}\nwhile not __import__('os').path.exists(sys.argv[1] + '.go'): time.sleep(0.01)"
    with CommandHook(python(slow, tmp_path / "out")) as hook:
        hook(event(index=0))
        until((tmp_path / "out").exists)
        spent = []
        for index in range(1, 101):
            begin = time.monotonic()
            hook(event(index=index))
            spent.append(time.monotonic() - begin)
        (tmp_path / "out.go").touch()
    assert np.median(spent) < 0.05
    ran = [json.loads(line)["index"] for line, *_ in records(tmp_path / "out")]
    assert ran == [0, *range(101 - WAITING, 101)]
    notes = texts(hook)
    assert "too slow" in notes[0]
    assert f"{100 - WAITING} changes" in notes[1]
    assert len(notes) == 2


def test_what_a_program_prints_never_gets_between_the_json_lines_on_stdout():
    code = """
import sys
sys.path[:0] = [sys.argv[1]]
from test_hooks import CommandHook, event
with CommandHook(["echo", "from the program"]) as hook:
    hook(event())
print("ours")
"""
    arguments = python(code, Path(__file__).parent)
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    assert done.stdout == "ours\n"
    assert "from the program" in done.stderr


def test_a_command_is_split_as_a_shell_would_but_must_be_there():
    assert parse_command("echo 'two words' {label}") == ("echo", "two words", "{label}")
    for text in ("", "  ", "echo 'open", "no-such-program-here -x", "/etc/passwd"):
        with pytest.raises(UsageError, match="--on-change"):
            parse_command(text)


@pytest.mark.parametrize("arguments", [{"argv": []}, {"argv": ["true"], "timeout_s": 0}])
def test_a_hook_without_program_or_time_is_refused(arguments):
    with pytest.raises(UsageError):
        CommandHook(**arguments)


# MQTT


def test_addresses_are_read_from_urls():
    assert parse_mqtt("mqtt://127.0.0.1/topic") == MqttAddress(host="127.0.0.1", port=1883, topic="topic")
    assert parse_mqtt("mqtt://[::1]:99/a/b%20c?retain") == MqttAddress(host="::1", port=99, topic="a/b c", retain=True)
    assert parse_mqtt("mqtts://broker/ä") == MqttAddress(host="broker", port=8883, topic="ä", tls=True)
    assert parse_mqtt("mqtt://h/a/b").status_topic == "a/b/status"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "broker/topic",
        "http://broker/topic",
        "mqtt://broker",
        "mqtt://broker/",
        "mqtt:///topic",
        "mqtt://broker:x/topic",
        "mqtt://broker:99999/topic",
        "mqtt://broker/a/+",
        "mqtt://broker/%23",
        "mqtt://broker/t?retain=1",
        "mqtt://broker/t#x",
        "mqtt://[::1/t",
        f"mqtt://{'x' * 70}/t",
    ],
)
def test_what_is_no_address_is_refused_with_the_form(url):
    with pytest.raises(UsageError, match=r"mqtt://HOST\[:PORT\]/TOPIC"):
        parse_mqtt(url)


def test_a_password_in_the_address_is_refused_and_not_repeated():
    with pytest.raises(UsageError, match="EDGECLF_MQTT_PASSWORD") as caught:
        parse_mqtt("mqtt://me:secret@broker/topic")
    assert "secret" not in str(caught.value)


def test_without_paho_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "paho.mqtt.client", None)
    with pytest.raises(DependencyError, match=r"edgeclf-device\[mqtt\]"):
        MqttHook(parse_mqtt("mqtt://127.0.0.1/topic"))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class RunningBroker:
    """amqtt in a thread of its own."""

    def __init__(self, port, **listener):
        broker = pytest.importorskip("amqtt.broker")
        self.port = port
        self._plugins = listener.pop(
            "plugins", {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
        )
        self._config = {
            "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}", **listener}},
            "plugins": self._plugins,
        }
        self._broker_class = broker.Broker
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._broker = self._run(self._start())

    async def _start(self):
        broker = self._broker_class(self._config)
        await broker.start()
        return broker

    def _run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(PATIENCE_S)

    def stop(self):
        self._run(self._broker.shutdown())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)
        self._loop.close()


@pytest.fixture
def broker():
    running = RunningBroker(free_port())
    yield running
    running.stop()


@contextmanager
def subscriber(port, topic="edge/#"):
    """A queue of (topic, payload, retained) of all that is published."""
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion

    received, ready = queue.Queue(), threading.Event()
    client = Client(CallbackAPIVersion.VERSION2)
    client.on_connect = lambda client, *_: client.subscribe(topic, qos=1)
    client.on_subscribe = lambda *_: ready.set()
    client.on_message = lambda _, __, message: received.put((message.topic, message.payload.decode(), message.retain))
    client.connect("127.0.0.1", port)
    client.loop_start()
    assert ready.wait(PATIENCE_S)
    yield received
    client.disconnect()
    client.loop_stop()


def next_message(received, topic):
    while True:
        message = received.get(timeout=PATIENCE_S)
        if message[0] == topic:
            return message[1]


def address(port, suffix=""):
    return parse_mqtt(f"mqtt://127.0.0.1:{port}/edge/cell{suffix}")


def test_changes_are_published_in_order_between_online_and_offline(broker):
    with subscriber(broker.port) as received:
        with MqttHook(address(broker.port)) as hook:
            for index in range(6):
                hook(event(LABELS[0], index=index, changed=index % 2 == 0))
        messages = [received.get(timeout=PATIENCE_S)[:2] for _ in range(5)]
    assert messages[0] == ("edge/cell/status", "online")
    assert messages[-1] == ("edge/cell/status", "offline")
    published = [json.loads(payload) for topic, payload in messages[1:-1]]
    assert {topic for topic, _ in messages[1:-1]} == {"edge/cell"}
    assert [one["index"] for one in published] == [0, 2, 4]
    assert published[0]["decision"]["label"] == LABELS[0]
    assert hook.take_notes() == []


def test_a_retained_message_is_there_for_who_comes_later_and_another_is_not(broker):
    with MqttHook(address(broker.port, "?retain")) as hook:
        hook(event(index=1))
        hook(event(index=2))
    with MqttHook(parse_mqtt(f"mqtt://127.0.0.1:{broker.port}/edge/other")) as hook:
        hook(event(index=3))
    with subscriber(broker.port) as received:
        messages = {topic: payload for topic, payload, _ in (received.get(timeout=PATIENCE_S) for _ in range(3))}
    assert set(messages) == {"edge/cell", "edge/cell/status", "edge/other/status"}
    assert json.loads(messages["edge/cell"])["index"] == 2
    assert messages["edge/cell/status"] == "offline"


def test_a_broker_that_comes_back_gets_what_waited(broker):
    with MqttHook(address(broker.port)) as hook:
        with subscriber(broker.port) as received:
            hook(event(index=1))
            assert json.loads(next_message(received, "edge/cell"))["index"] == 1
        broker.stop()
        notes = []
        until(lambda: notes.extend(texts(hook)) or notes, "a note")
        assert "is gone" in notes[0]
        hook(event(index=2))
        again = RunningBroker(broker.port)
        try:
            with subscriber(again.port) as received:
                assert next_message(received, "edge/cell/status") == "online"
                assert json.loads(next_message(received, "edge/cell"))["index"] == 2
            until(lambda: notes.extend(texts(hook)) or len(notes) > 1, "a second note")
            assert "connected again" in notes[-1]
        finally:
            hook.close()
            broker.stop = again.stop


def test_without_a_broker_nothing_waits_and_one_note_says_so():
    pytest.importorskip("paho.mqtt")
    begin = time.monotonic()
    with MqttHook(address(free_port())) as hook:
        assert time.monotonic() - begin < 10
        notes = []
        until(lambda: notes.extend(texts(hook)) or notes, "a note")
        begin = time.monotonic()
        for index in range(50):
            hook(event(index=index))
        assert time.monotonic() - begin < 10
        begin = time.monotonic()
    assert time.monotonic() - begin < 10
    notes += texts(hook)
    assert "can't be reached" in notes[0]
    assert sum("can't be reached" in note for note in notes) == 1


def test_a_client_that_dies_leaves_its_last_will(broker):
    code = """
import os, sys, time
sys.path[:0] = [sys.argv[1]]
from test_hooks import MqttHook, address
hook = MqttHook(address(int(sys.argv[2])))
time.sleep(60)
"""
    with subscriber(broker.port) as received:
        dying = subprocess.Popen(python(code, Path(__file__).parent, broker.port))
        try:
            assert next_message(received, "edge/cell/status") == "online"
        finally:
            dying.kill()
            dying.wait()
        assert next_message(received, "edge/cell/status") == "offline"
    with subscriber(broker.port) as received:
        assert received.get(timeout=PATIENCE_S) == ("edge/cell/status", "offline", True)


def test_a_broker_that_wants_a_password_gets_it_from_the_environment_or_is_noted(tmp_path, monkeypatch):
    good = "right"
    hasher = pytest.importorskip("pwdlib.hashers.argon2").Argon2Hasher(time_cost=1, memory_cost=64)
    (tmp_path / "passwords").write_text(f"camera:{hasher.hash(good)}\n")
    plugins = {"amqtt.plugins.authentication.FileAuthPlugin": {"password_file": str(tmp_path / "passwords")}}
    guarded = RunningBroker(free_port(), plugins=plugins)
    try:
        monkeypatch.setenv("EDGECLF_MQTT_USER", "camera")
        monkeypatch.setenv("EDGECLF_MQTT_PASSWORD", good)
        with open_mqtt(f"mqtt://127.0.0.1:{guarded.port}/edge/cell") as hook:
            hook(event())
            until(lambda: hook._connected, "the connection")
        assert texts(hook) == []
        with MqttHook(address(guarded.port), user="camera", password=good[::-1]) as hook:
            notes = []
            until(lambda: notes.extend(texts(hook)) or notes, "a note")
        assert "refuses the connection" in notes[0]
    finally:
        guarded.stop()


def test_over_tls_a_certificate_that_is_known_is_taken_and_any_other_refused(tmp_path, monkeypatch):
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    extra = ["-addext", "subjectAltName=IP:127.0.0.1", "-out", str(certificate), "-keyout", str(key)]
    try:
        subprocess.run([*command, *extra], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    guarded = RunningBroker(free_port(), ssl=True, certfile=str(certificate), keyfile=str(key))
    where = parse_mqtt(f"mqtts://127.0.0.1:{guarded.port}/edge/cell")
    try:
        with MqttHook(where) as hook:
            notes = []
            until(lambda: notes.extend(texts(hook)) or notes, "a note")
        assert "can't be reached" in notes[0]
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        with MqttHook(where) as hook:
            until(lambda: hook._connected, "the connection")
            hook(event())
        assert texts(hook) == []
    finally:
        guarded.stop()

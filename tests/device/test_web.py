from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import math
import re
import socket
import threading
import time
from time import monotonic_ns

import numpy as np
import pytest

from edgeclf_device import Classifier
from edgeclf_device.decisions import Decision
from edgeclf_device.errors import DependencyError, SystemStateError, UsageError
from edgeclf_device.health import Health
from edgeclf_device.keeping import KeepHard
from edgeclf_device.sources import Frame, Note, SourceStatus
from edgeclf_device.streaming import Event

pytest.importorskip("uvicorn", reason="NO LIVE PAGE TESTED: uvicorn is not installed")
cv2 = pytest.importorskip("cv2", reason="NO LIVE PAGE TESTED: OpenCV is not installed")

from edgeclf_device.web import facts_of, serve  # noqa: E402 - after what it needs
from edgeclf_device.web.address import parse_address  # noqa: E402
from edgeclf_device.web.app import MAX_VIEWERS, PER_S  # noqa: E402
from edgeclf_device.web.hub import STALLED_NS, Hub  # noqa: E402
from edgeclf_device.web.picture import MAX_SIDE, encode  # noqa: E402

TOKEN = "a-token-of-the-tests"  # noqa: S105 - of the tests
HEALTH = Health(
    temperature_c=61.5,
    throttled=("under-voltage has occurred",),
    frequency_mhz=1800.0,
    governor="ondemand",
    load_1_min=0.5,
    free_memory_mib=1024,
)
LIVE = SourceStatus(state="live", captured=40, dropped=3, size=(1280, 720), fps=30.0)
LABELS = ('say "hi"\\', "Riß", "dunkle Zelle", "ひび割れ")


@pytest.fixture
def classify(tiny, some_artifact, tmp_path):
    kind = some_artifact.name.removeprefix("tiny-")
    with Classifier.open(tiny.write(tmp_path, kind, "odd" + some_artifact.suffix, labels=LABELS)) as classifier:
        yield classifier


@pytest.fixture
def event(classify):
    """Makes a real event of a real frame."""

    def make(index=0, image=None, color="rgb", *, label="Riß", changed=False, late_ms=0.0):
        pixels = np.full((48, 64, 3), index % 256, np.uint8) if image is None else image
        now_ns = monotonic_ns() - round(late_ms * 1e6)
        frame = Frame(image=pixels, color=color, index=index, name=f"f#{index}", capture_ms=1.5, captured_ns=now_ns)
        decision = Decision(label=label, score=0.75, changed=changed, since_ns=now_ns - 2_000_000_000)
        return Event(frame=frame, result=classify(pixels, color=color), decision=decision, age_ms=12.5, total_ms=4.25)

    return make


@pytest.fixture
def facts(classify):
    return facts_of(classify, "a camera of the tests")


@pytest.fixture
def page(facts):
    with serve("127.0.0.1:0", facts=facts, health=lambda: HEALTH) as served:
        yield served


@pytest.fixture
def guarded(facts):
    with serve("127.0.0.1:0", facts=facts, token=TOKEN, health=lambda: HEALTH) as served:
        yield served


def port_of(page):
    return int(re.search(r":(\d+)/", page.url)[1])


def ask(page, path, method="GET", **headers):
    """(status, headers, body) of one request."""
    connection = http.client.HTTPConnection("127.0.0.1", port_of(page), timeout=10)
    with contextlib.closing(connection):
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response.status, response.headers, response.read()


class Viewer:
    """Reads server-sent events."""

    def __init__(self, page):
        self.connection = http.client.HTTPConnection("127.0.0.1", port_of(page), timeout=10)
        self.connection.request("GET", "/events")
        self.response = self.connection.getresponse()

    def next(self):
        """(name, id, data) of the next event."""
        fields = {}
        while True:
            line = self.response.readline().decode().rstrip("\n")
            if not line and "data" in fields:
                return fields.get("event", "message"), fields.get("id"), json.loads(fields["data"], parse_constant=bad)
            key, _, value = line.partition(": ")
            if key and not line.startswith(":"):
                fields[key] = value

    def until(self, wanted):
        """The data of the next event for which ``wanted(name, data)`` holds."""
        while True:
            name, _, data = self.next()
            if wanted(name, data):
                return data

    def close(self):
        self.connection.close()


def bad(constant):
    raise AssertionError(f"{constant} is not JSON")


@pytest.fixture
def viewer(page):
    with contextlib.closing(Viewer(page)) as made:
        yield made


# ---- what is answered


def test_the_page_and_its_parts_come_with_a_strict_policy(page):
    for path, kind in {"/": "text/html", "/page.js": "text/javascript", "/page.css": "text/css"}.items():
        status, headers, body = ask(page, path)
        assert (status, headers.get_content_type()) == (200, kind)
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert headers["Access-Control-Allow-Origin"] is None
        assert not re.search(rb"https?://(?!www\.w3\.org)", body), "an address outside"
    html = ask(page, "/")[2].decode()
    assert not re.search(r"\son\w+=|style=|<script>|<style>|javascript:", html), "inline code is against the policy"


@pytest.mark.parametrize(
    ("image", "color"),
    [
        (np.full((30, 40, 3), (200, 100, 20), np.uint8), "rgb"),
        (np.full((30, 40, 3), (20, 100, 200), np.uint8), "bgr"),
        (np.full((30, 40, 4), (200, 100, 20, 255), np.uint8), "rgb"),
        (np.full((30, 40, 4), (20, 100, 200, 7), np.uint8), "bgr"),
        (np.full((2000, 3000, 3), (200, 100, 20), np.uint8)[::2, ::-1], "rgb"),
        (np.full((3000, 1000, 3), (20, 100, 200), np.uint8), "bgr"),
    ],
)
def test_every_form_of_frame_is_shown_in_its_right_colours(page, event, image, color):
    page.publish(event(image=image, color=color))
    status, headers, jpeg = ask(page, "/frame.jpg")
    shown = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert (status, headers["X-Number"]) == (200, "1")
    assert np.abs(shown.mean((0, 1)) - (200, 100, 20)).max() < 4
    assert max(shown.shape) == min(max(image.shape), MAX_SIDE)
    assert math.isclose(shown.shape[0] / shown.shape[1], image.shape[0] / image.shape[1], rel_tol=0.01)


@pytest.mark.parametrize("shape", [(30, 40), (30, 40, 1)])
def test_grey_frames_stay_grey(shape):
    shown = cv2.imdecode(np.frombuffer(encode(np.full(shape, 90, np.uint8), "rgb"), np.uint8), cv2.IMREAD_UNCHANGED)
    assert shown.shape == (30, 40)
    assert abs(shown.mean() - 90) < 3


def test_a_frame_is_not_written_to(event, page):
    image = np.full((1500, 2000, 3), 7, np.uint8)
    image.flags.writeable = False
    page.publish(event(image=image))
    assert ask(page, "/frame.jpg")[0] == 200


def test_events_tell_the_facts_first_and_then_everything_of_a_frame(page, viewer, event):
    assert viewer.next()[:2] == ("facts", None)
    published = event(7, changed=True)
    page.publish(published, LIVE, [Note(at_ns=monotonic_ns(), level="warning", text="the camera was <b>lost</b>")])
    while (got := viewer.next())[0] != "message":
        pass
    _, number, data = got
    assert number == "1"
    assert (data["index"], data["name"], data["label"]) == (7, "f#7", published.result.label)
    assert len(data["top"]) == 4
    assert [entry["score"] for entry in data["top"]] == sorted(
        (float(s) for s in published.result.scores), reverse=True
    )
    assert set(data["timing_ms"]) == {"capture", "prepare", "infer", "decide", "total"}
    assert data["decision"]["label"] == "Riß"
    assert data["decision"]["held_ms"] == 2000.0
    assert data["age_ms"] == 12.5
    assert data["status"]["size"] == [1280, 720]
    assert data["health"]["temperature_c"] == 61.5
    assert [(line["level"], line["text"]) for line in data["log"]] == [
        ("decision", "Riß"),
        ("warning", "the camera was <b>lost</b>"),
    ]


def test_what_was_logged_is_told_to_each_viewer_once(page, viewer, event):
    page.publish(event(), LIVE, [Note(at_ns=monotonic_ns(), level="info", text="one")])
    told = viewer.until(lambda name, data: bool(data.get("log")))["log"]
    page.report(LIVE, [Note(at_ns=monotonic_ns(), level="info", text="two")])
    told += viewer.until(lambda name, data: bool(data.get("log")))["log"]
    assert [line["text"] for line in told] == ["one", "two"]
    with contextlib.closing(Viewer(page)) as late:
        told = late.until(lambda name, data: bool(data.get("log")))["log"]
    assert [line["text"] for line in told] == ["one", "two"]


def test_scores_that_are_no_numbers_are_null(page, viewer, event):
    plain = event()
    page.publish(dataclasses.replace(plain, result=dataclasses.replace(plain.result, score=math.nan)), LIVE)
    assert viewer.until(lambda name, data: name == "message")["score"] is None


def test_a_quiet_source_is_heard_of_every_second(page, viewer):
    page.report(SourceStatus(state="stalled", detail="the camera was unplugged", faults=1), [])
    viewer.next()
    for _ in range(2):
        begin = monotonic_ns()
        name, _, data = viewer.next()
        assert (name, data["state"], data["reason"]) == ("state", "stalled", "the camera was unplugged")
        assert (monotonic_ns() - begin) / 1e9 < 5


def test_health_is_good_only_while_frames_are_fresh(page, event):
    status, _, body = ask(page, "/healthz")
    assert (status, json.loads(body)["state"]) == (503, "starting")
    page.publish(event(), LIVE)
    status, _, body = ask(page, "/healthz")
    assert (status, json.loads(body)["healthy"]) == (200, True)
    page.report(SourceStatus(state="stalled", detail="no new frame for 2 s", faults=1), [])
    status, _, body = ask(page, "/healthz")
    assert status == 503
    assert json.loads(body) == {
        "healthy": False,
        "state": "stalled",
        "reason": "no new frame for 2 s",
        "frames": 1,
        "frame_age_ms": json.loads(body)["frame_age_ms"],
    }
    page.publish(event(1), LIVE)
    assert ask(page, "/healthz")[0] == 200


def test_an_inference_that_hangs_is_stalled_whatever_the_source_says(facts, event):
    hub = Hub(facts)
    for index in range(3):
        hub.publish(event(index), LIVE, [])
    now_ns = hub.newest.at_ns
    assert hub.freshness(now_ns + STALLED_NS) == ("live", "")
    assert hub.freshness(now_ns + STALLED_NS + 1_000_000)[0] == "stalled"


def test_a_model_that_takes_seconds_is_not_called_stalled(facts, event, monkeypatch):
    hub = Hub(facts)
    clock = iter([0, 4_000_000_000, 8_000_000_000])
    made = [event(index) for index in range(3)]
    monkeypatch.setattr("edgeclf_device.web.hub.monotonic_ns", lambda: next(clock))
    for one in made:
        hub.publish(one, LIVE, [])
    assert hub.freshness(8_000_000_000 + 11_000_000_000)[0] == "live"
    assert hub.freshness(8_000_000_000 + 13_000_000_000)[0] == "stalled"
    assert hub.fps(8_000_000_000) == 0.25


LINE = re.compile(r'[a-z_][a-z0-9_]*(\{([a-z]+="(\\[\\"n]|[^\\"\n])*",?)*\})? (-?[0-9.e+-]+)')


def test_metrics_are_in_the_text_format_and_add_up(page, event):
    for index in range(5):
        page.publish(event(index, changed=index == 0), LIVE)
    _wait_until(lambda: "edgeclf_temperature_celsius" in ask(page, "/metrics")[2].decode())
    status, headers, body = ask(page, "/metrics")
    text = body.decode()
    assert (status, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert all(LINE.fullmatch(line) for line in lines), [line for line in lines if not LINE.fullmatch(line)]
    values = dict(line.rsplit(" ", 1) for line in lines)
    assert len(values) == len(lines), "a series appears twice"
    assert values["edgeclf_frames_total"] == "5"
    assert values["edgeclf_decision_changes_total"] == "1"
    assert values['edgeclf_stage_seconds_bucket{stage="infer",le="+Inf"}'] == "5"
    assert values['edgeclf_stage_seconds_count{stage="infer"}'] == "5"
    assert float(values['edgeclf_stage_seconds_sum{stage="total"}']) == pytest.approx(5 * 0.00425)
    assert values['edgeclf_stage_seconds_bucket{stage="total",le="0.002"}'] == "0"
    assert values['edgeclf_stage_seconds_bucket{stage="total",le="0.005"}'] == "5"
    assert values["edgeclf_source_dropped_total"] == "3"
    assert values['edgeclf_state{state="live"}'] == "1"
    assert values["edgeclf_temperature_celsius"] == "61.5"
    assert values["edgeclf_free_memory_bytes"] == str(1 << 30)
    counts = [int(value) for series, value in values.items() if series.startswith("edgeclf_labels_total")]
    assert sum(counts) == 5
    families = re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE)
    assert len(families) == len(set(families))


def test_hard_frames_that_are_kept_are_counted_and_nothing_is_said_where_none_are_to_be(facts, page, tmp_path):
    assert b"hard_frames" not in ask(page, "/metrics")[2]
    with (
        KeepHard(tmp_path, artifact="") as keeper,
        serve("127.0.0.1:0", facts=facts, health=lambda: HEALTH, keeping=keeper) as counted,
    ):
        body = ask(counted, "/metrics")[2].decode()
    assert "\nedgeclf_hard_frames 0\n" in body
    assert "\nedgeclf_hard_frames_lost_total 0\n" in body


def test_labels_in_metrics_are_escaped(page, event):
    made = event()
    page.publish(dataclasses.replace(made, result=dataclasses.replace(made.result, label=LABELS[0] + "\n")), LIVE)
    assert rb'edgeclf_labels_total{label="say \"hi\"\\\n"} 1' in ask(page, "/metrics")[2]


def test_a_board_whose_health_can_not_be_read_is_noted_and_the_page_goes_on(facts, event):
    def broken():
        raise OSError("no such sensor")

    with serve("127.0.0.1:0", facts=facts, health=broken) as page, contextlib.closing(Viewer(page)) as viewer:
        page.publish(event(), LIVE)
        data = viewer.until(lambda name, data: bool(data.get("log")))
        assert data["log"][0]["text"] == "The board's health can't be read: no such sensor."


def test_a_page_that_ends_says_so(facts, event):
    page = serve("127.0.0.1:0", facts=facts, health=lambda: HEALTH)
    with contextlib.closing(Viewer(page)) as viewer:
        page.publish(event(), LIVE)
        viewer.until(lambda name, data: name == "message")
        begin = monotonic_ns()
        page.close()
        assert (monotonic_ns() - begin) / 1e9 < 5
        viewer.until(lambda name, data: name == "end")
    page.close()
    page.publish(event(1), LIVE)
    assert not [thread for thread in threading.enumerate() if thread.name == "edgeclf-page"]


# ---- a slow viewer


def test_publishing_takes_no_lock_and_never_calls_the_encoder(page, event, monkeypatch):
    """With nobody watching, no picture is made; publishing leaves only a reference to the event behind."""
    made = []
    monkeypatch.setattr("edgeclf_device.web.app.encode", lambda *a: made.append(threading.current_thread()) or b"jpeg")
    for index in range(100):
        page.publish(event(index), LIVE)
    assert made == []
    assert ask(page, "/frame.jpg")[2] == b"jpeg"
    assert threading.current_thread() not in made


def test_one_picture_serves_all_viewers_and_no_more_are_made_than_can_be_seen(page, event, monkeypatch):
    made = []
    monkeypatch.setattr("edgeclf_device.web.app.encode", lambda *a: made.append(monotonic_ns()) or b"jpeg")
    answers = []
    stop = threading.Event()
    begin_ns = monotonic_ns()

    def watch():
        number = 0
        while not stop.is_set():
            status, headers, _ = ask(page, f"/frame.jpg?after={number}")
            number = int(headers["X-Number"]) if status == 200 else number
            answers.append(status)

    viewers = [threading.Thread(target=watch) for _ in range(4)]
    for one in viewers:
        one.start()
    one_event = event()
    for _ in range(150):
        page.publish(one_event, LIVE)
        time.sleep(0.01)
    stop.set()
    page.publish(one_event, LIVE)
    for one in viewers:
        one.join()
    elapsed_s = (monotonic_ns() - begin_ns) / 1e9
    assert 3 < len(made) <= elapsed_s * PER_S + 2
    assert len(answers) > len(made)


def test_a_viewer_that_reads_nothing_is_cut_off_and_the_others_see_the_newest(facts, event, monkeypatch):
    monkeypatch.setattr("edgeclf_device.web.connection.SEND_TIMEOUT_S", 0.5)
    big = event(image=np.random.default_rng(0).integers(0, 256, (900, 1280, 3), dtype=np.uint8))
    with (
        serve("127.0.0.1:0", facts=facts, health=lambda: HEALTH) as page,
        socket.socket() as stalled,
        contextlib.closing(Viewer(page)) as viewer,
    ):
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stalled.connect(("127.0.0.1", port_of(page)))
        page.publish(big, LIVE)
        stalled.sendall(b"GET /frame.jpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
        for _ in range(300):
            page.publish(big, LIVE)
            time.sleep(0.01)
            if b"edgeclf_viewers_dropped_total 1\n" in ask(page, "/metrics")[2]:
                break
        assert b"edgeclf_viewers_dropped_total 1\n" in ask(page, "/metrics")[2]
        page.publish(event(99), LIVE)
        assert viewer.until(lambda name, data: data.get("index") == 99)["label"]
        stalled.settimeout(10)
        with contextlib.suppress(ConnectionError):
            while stalled.recv(1 << 16):
                pass


def test_a_viewer_that_pauses_gets_the_newest_event_and_not_the_backlog(page, event):
    with contextlib.closing(Viewer(page)) as viewer:
        page.publish(event(0), LIVE)
        viewer.until(lambda name, data: data.get("index") == 0)
        time.sleep(0.2)
        for index in range(1, 500):
            page.publish(event(index), LIVE)
        seen = [viewer.until(lambda name, data: name == "message")["index"]]
        while seen[-1] != 499:
            seen.append(viewer.until(lambda name, data: name == "message")["index"])
        assert len(seen) < 100


def test_viewers_beyond_the_cap_are_told_why(page, event):
    viewers = []
    try:
        for _ in range(MAX_VIEWERS):
            viewers.append(Viewer(page))
            assert viewers[-1].response.status == 200
        status, headers, body = ask(page, "/events")
        assert (status, headers["Retry-After"]) == (503, "10")
        assert f"{MAX_VIEWERS} viewers".encode() in body
        viewers.pop().close()
        _wait_until(lambda: f"edgeclf_viewers {MAX_VIEWERS - 1}\n".encode() in ask(page, "/metrics")[2])
        with contextlib.closing(Viewer(page)) as again:
            assert again.response.status == 200
    finally:
        for one in viewers:
            one.close()


def test_connections_that_ask_nothing_do_not_use_up_the_file_descriptors(facts, monkeypatch):
    monkeypatch.setattr("edgeclf_device.web.connection.MAX_CONNECTIONS", 5)
    monkeypatch.setattr("edgeclf_device.web.connection.REQUEST_TIMEOUT_S", 0.5)
    with serve("127.0.0.1:0", facts=facts, health=lambda: HEALTH) as page, contextlib.ExitStack() as stack:
        for _ in range(12):
            idle = stack.enter_context(socket.create_connection(("127.0.0.1", port_of(page))))
            idle.sendall(b"GET /")
        _wait_until(lambda: _answers(page))


def _answers(page):
    with contextlib.suppress(OSError, http.client.HTTPException):
        return ask(page, "/metrics")[0] == 200
    return False


# ---- who may see it


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "[::2]:80"])
def test_another_host_name_is_refused(page, host):
    assert ask(page, "/frame.jpg", Host=host)[0] == 421


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9000", "127.0.0.1:1", "[::1]:8080"])
def test_this_machine_s_names_are_served_on_any_port_that_a_tunnel_gives(page, host):
    assert ask(page, "/", Host=host)[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_only_reading_is_served(page, method):
    status, headers, _ = ask(page, "/events", method)
    assert (status, headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", ["/", "/events", "/metrics", "/page.js"])
def test_head_ends_at_once(page, path):
    assert ask(page, path, "HEAD")[::2] == (200, b"")


def test_other_sites_may_not_embed_it(page):
    assert ask(page, "/events", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors")[0] == 403
    assert ask(page, "/", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate")[0] == 200


@pytest.mark.parametrize("path", ["/", "/frame.jpg", "/events", "/metrics", "/healthz", "/page.js", "/nowhere"])
def test_without_its_token_nothing_is_shown(guarded, path):
    status, headers, body = ask(guarded, path)
    assert (status, headers["WWW-Authenticate"], headers["Set-Cookie"]) == (401, "Bearer", None)
    assert TOKEN.encode() not in body
    assert ask(guarded, f"{path}?token={TOKEN}x")[0] == 401
    assert ask(guarded, path, Authorization=f"Bearer {TOKEN[:-1]}")[0] == 401
    assert ask(guarded, path, Cookie=f"edgeclf-{port_of(guarded)}={TOKEN}")[0] == 401
    assert ask(guarded, path, Authorization="Bearer ", Cookie=f"edgeclf-{port_of(guarded)}=")[0] == 401
    assert ask(guarded, f"{path}?token=%ff%00")[0] == 401


def test_the_token_is_taken_as_bearer_or_once_in_the_address(guarded, facts):
    assert ask(guarded, "/metrics", Authorization=f"bearer {TOKEN}")[0] == 200
    status, headers, _ = ask(guarded, f"/?token={TOKEN}")
    cookie = headers["Set-Cookie"]
    assert status == 200
    assert re.fullmatch(r"edgeclf-\d+=[0-9a-f]{64}; Path=/; HttpOnly; SameSite=Strict", cookie)
    assert TOKEN not in cookie
    assert ask(guarded, "/metrics", Cookie=cookie.partition(";")[0])[0] == 200
    with serve("127.0.0.1:0", facts=facts, token=TOKEN + "2", health=lambda: HEALTH) as other:
        value = cookie.partition(";")[0].partition("=")[2]
        assert ask(other, "/metrics", Cookie=f"edgeclf-{port_of(other)}={value}")[0] == 401


def test_the_token_is_never_logged(facts, capfd, caplog):
    with serve("127.0.0.1:0", facts=facts, token=TOKEN, health=lambda: HEALTH) as page:
        assert TOKEN not in page.url
        assert page.link == f"{page.url}?token={TOKEN}"
        ask(page, f"/?token={TOKEN}")
        ask(page, f"/frame.jpg?after=x&token={TOKEN}")
        with socket.create_connection(("127.0.0.1", port_of(page))) as broken:
            broken.sendall(f"GARBAGE ?token={TOKEN}\r\n\r\n".encode())
            broken.recv(1000)
    said = capfd.readouterr()
    assert TOKEN not in said.out + said.err + caplog.text


def test_the_word_auto_makes_a_token(facts):
    with serve("127.0.0.1:0", facts=facts, token="auto", health=lambda: HEALTH) as page:  # noqa: S106 - no secret
        made = page.link.partition("token=")[2]
        assert len(made) >= 32
        assert ask(page, "/metrics")[0] == 401
        assert ask(page, "/metrics", Authorization=f"Bearer {made}")[0] == 200


# ---- what is refused


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0"])
def test_2_a_host_beyond_loopback_needs_leave_and_a_token(facts, address):
    with pytest.raises(UsageError, match=r"add --allow-remote and a token"):
        serve(address, facts=facts, token=TOKEN)
    with pytest.raises(UsageError, match=r"needs a token; give one with --token-file or EDGECLF_TOKEN"):
        serve(address, facts=facts, allow_remote=True)
    with serve(address, facts=facts, allow_remote=True, token=TOKEN, health=lambda: HEALTH) as page:
        assert ask(page, "/", Host="board.local")[0] == 401
        assert ask(page, f"/?token={TOKEN}", Host="board.local")[0] == 200


@pytest.mark.parametrize(
    "address", ["", "8080", ":8080", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "::1:80", "http://a:80", "a b:1"]
)
def test_2_an_address_of_another_form(facts, address):
    with pytest.raises(UsageError, match="must be HOST:PORT"):
        serve(address, facts=facts)


def test_2_an_unknown_host(facts):
    with pytest.raises(UsageError, match="is not known here"):
        serve("no-such-host.invalid:80", facts=facts)


@pytest.mark.parametrize("token", ["", "short", "with a space in it all", "ümlaut-ümlaut-ümlaut"])
def test_2_a_weak_token_is_not_repeated(facts, token):
    with pytest.raises(UsageError, match="at least 16") as caught:
        serve("127.0.0.1:0", facts=facts, token=token)
    assert not token or token not in str(caught.value)


def test_5_a_port_that_is_taken_is_named_with_the_remedy(page, facts):
    port = port_of(page)
    with pytest.raises(SystemStateError, match=f"Port {port} of 127.0.0.1 is taken .* name another") as caught:
        serve(f"127.0.0.1:{port}", facts=facts)
    assert caught.value.exit_code == 5


def test_5_an_address_of_another_machine(facts):
    with pytest.raises(SystemStateError, match="no address of this machine"):
        serve("192.0.2.1:0", facts=facts, allow_remote=True, token=TOKEN)


def test_5_without_its_packages_the_extra_is_named(child):
    code = (
        "import sys\n"
        "sys.modules['uvicorn'] = None\n"
        "from edgeclf_device.web import Facts, serve\n"
        "from edgeclf_device.errors import DependencyError\n"
        "facts = Facts(model='m', artifact='a', scheme='s', engine='e', threads=1, source='c', labels=2,"
        " reject_below=None)\n"
        "try: serve('127.0.0.1:0', facts=facts)\n"
        "except DependencyError as error: print(error)\n"
    )
    assert 'pip install "edgeclf-device[web,camera]"' in child(code).stdout
    assert issubclass(DependencyError, ImportError)


def test_importing_the_page_imports_no_server(child):
    done = child(
        "import sys, edgeclf_device.web; print([m for m in ('starlette', 'uvicorn', 'cv2') if m in sys.modules])"
    )
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_ipv6_loopback_is_served(facts):
    try:
        page = serve("[::1]:0", facts=facts, health=lambda: HEALTH)
    except SystemStateError:
        pytest.skip("IPv6 is off on this machine")
    with page:
        assert page.url.startswith("http://[::1]:")
        connection = http.client.HTTPConnection("::1", port_of(page), timeout=10)
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 503


def test_loopback_is_told_from_the_rest():
    assert [parse_address(text).loopback for text in ("localhost:1", "127.1.2.3:1", "[::1]:1")] == [True] * 3
    assert [parse_address(text).loopback for text in ("0.0.0.0:1", "192.0.2.1:1", "[::]:1")] == [False] * 3


def _wait_until(holds, timeout_s=10.0):
    end_ns = monotonic_ns() + timeout_s * 1e9
    while not holds():
        assert monotonic_ns() < end_ns, "it never came true"
        time.sleep(0.02)

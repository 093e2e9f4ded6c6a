"""The live page in a real browser: Debian's Chromium without a screen."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import threading
import time
from itertools import product
from time import monotonic_ns

import numpy as np
import pytest

from edgeclf_device import Classifier
from edgeclf_device.decisions import Decision
from edgeclf_device.health import Health
from edgeclf_device.sources import Frame, Note, SourceStatus
from edgeclf_device.streaming import Event

for name in ("uvicorn", "cv2"):
    pytest.importorskip(name, reason=f"THE LIVE PAGE IS NOT TRIED IN A BROWSER: {name} is not installed")

from edgeclf_device.web import facts_of, serve  # noqa: E402

HEALTH = Health(
    temperature_c=61.5,
    throttled=("under-voltage has occurred",),
    frequency_mhz=1800.0,
    governor="ondemand",
    load_1_min=0.5,
    free_memory_mib=1024,
)
LABELS = (
    "intact",
    "<b>Riß</b>",
    "eine-sehr-lange-Beschriftung-ohne-jede-Lücke-zum-Umbrechen-die-nicht-aufhört",
    "ひび割れ",
)
PHONE = {"width": 360, "height": 740}


@pytest.fixture
def classify(tiny, some_artifact, tmp_path):
    kind = some_artifact.name.removeprefix("tiny-")
    path = tiny.write(tmp_path, kind, "cells" + some_artifact.suffix, labels=LABELS, reject_below=0.3)
    with Classifier.open(path) as classifier:
        yield classifier


@pytest.fixture
def facts(classify):
    return facts_of(classify, "camera 0")


class Camera:
    """Frames of one colour with a square that moves, classified by a real model and published from a thread."""

    def __init__(self, page, classify, color):
        self.page, self.classify, self.color = page, classify, color
        self.published = 0
        self._paused, self._resting = threading.Event(), threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exception):
        self._stop.set()
        self._thread.join()

    def pause(self):
        """Give no more frames, also not the one that is in work."""
        self._paused.set()
        assert self._resting.wait(60)

    def resume(self):
        self._resting.clear()
        self._paused.clear()

    def _run(self):
        label, since_ns, index = None, 0, 0
        while not self._stop.is_set():
            time.sleep(0.02)
            if self._paused.is_set():
                self._resting.set()
                continue
            now_ns = monotonic_ns()
            frame = Frame(
                image=picture_of(self.color, index),
                color="rgb",
                index=index,
                name=f"camera#{index}",
                capture_ms=3.2,
                captured_ns=now_ns,
            )
            result = self.classify(frame.image)
            changed = result.label != label
            label, since_ns = result.label, now_ns if changed else since_ns
            decision = Decision(label=label, score=result.score, changed=changed, since_ns=since_ns)
            total_ms = 3.2 + sum(result.timing_ms.values())
            event = Event(
                frame=frame,
                result=result,
                decision=decision,
                age_ms=(monotonic_ns() - now_ns) / 1e6,
                total_ms=total_ms,
            )
            status = SourceStatus(state="live", captured=index + 1, dropped=index // 9, size=(640, 360), fps=50.0)
            notes = [Note(at_ns=now_ns, level="info", text="camera 0 gives 640×360.")] if index == 0 else []
            self.page.publish(event, status, notes)
            index += 1
            self.published = index


def picture_of(color, index):
    image = np.empty((360, 640, 3), np.uint8)
    image[:] = color
    left = index * 8 % 560
    image[150:210, left : left + 60] = 255 - np.asarray(color, np.uint8)
    return image


def two_colors(classify):
    """Two colours that the model gives different labels, whatever the place of the square."""
    by_label = {}
    for color in product((20, 130, 240), repeat=3):
        labels = {classify(picture_of(color, index)).label for index in (0, 20, 40, 60)}
        if len(labels) == 1:
            by_label.setdefault(labels.pop(), color)
    (one, first), (other, second) = list(by_label.items())[:2]
    return (one, first), (other, second)


def shows_label(tab, label):
    tab.wait_for_function("label => document.getElementById('label').textContent === label", arg=label)


def picture(tab):
    """The pixels that the page shows."""
    return tab.locator("#picture").screenshot()


def overflow(tab):
    return tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


def test_the_picture_moves_and_the_label_follows_for_three_viewers_beside_a_stalled_one(
    opened, facts, classify, tmp_path, monkeypatch
):
    # On a busy machine this test takes longer than a stalled viewer is borne.
    monkeypatch.setattr("edgeclf_device.web.connection.SEND_TIMEOUT_S", 300)
    (one, first), (other, second) = two_colors(classify)
    with (
        serve("127.0.0.1:0", facts=facts, health=lambda: HEALTH) as page,
        Camera(page, classify, first) as camera,
        contextlib.ExitStack() as stack,
    ):
        port = int(page.url.rsplit(":", 1)[1].strip("/"))
        for path in (b"/events", b"/frame.jpg"):
            stalled = stack.enter_context(socket.socket())
            stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stalled.connect(("127.0.0.1", port))
            stalled.sendall(b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % path)
        tabs = [opened(page.url) for _ in range(3)]
        for tab in tabs:
            shows_label(tab, one)
            tab.wait_for_function("() => document.getElementById('picture').naturalWidth === 640")
            before = picture(tab)
            source = tab.locator("#picture").get_attribute("src")
            tab.wait_for_function("old => document.getElementById('picture').src !== old", arg=source)
            assert picture(tab) != before
        tabs[0].screenshot(path=tmp_path / "desktop.png", full_page=True)
        published = camera.published
        camera.color = second
        for tab in tabs:
            shows_label(tab, other)
            assert tab.locator("#label b").count() == 0, "a label is text, never markup"
            assert tab.locator("#bars li").count() == 4
            assert tab.locator("#state").inner_text() == "live"
            assert other in tab.locator("#log").inner_text()
        assert camera.published > published
        shown = tabs[0].locator("#source").inner_text().split()
        assert int(shown[shown.index("viewers") + 1]) == 4, "the stalled one is there all the while"
        assert tabs[0].locator("#temperature").inner_text() == "61.5 °C"
        assert tabs[0].locator("#label").get_attribute("aria-live") == "polite"
        assert "camera 0 gives 640×360." in tabs[0].locator("#log").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_nothing_is_wider_than_the_screen(opened, facts, classify, tmp_path, scheme):
    labels = dict(two_colors(classify))
    with serve("127.0.0.1:0", facts=facts, health=lambda: HEALTH) as page, Camera(page, classify, (0, 0, 0)) as camera:
        tab = opened(page.url, PHONE, color_scheme=scheme, has_touch=True, is_mobile=True, device_scale_factor=2)
        for label, color in labels.items():
            camera.color = color
            shows_label(tab, label)
            assert overflow(tab) == 0
        tab.wait_for_function("() => document.getElementById('picture').naturalWidth > 0")
        tab.screenshot(path=tmp_path / f"phone-{scheme}.png", full_page=True)
        red, green, blue = map(
            int, tab.evaluate("getComputedStyle(document.body).backgroundColor").strip("rgb()").split(",")
        )
        assert (red + green + blue > 600) == (scheme == "light")
        tab.set_viewport_size({"width": 320, "height": 600})
        assert overflow(tab) == 0


def test_a_stale_frame_is_greyed_with_the_time_until_frames_come_again(opened, facts, classify, tmp_path):
    with (
        serve("127.0.0.1:0", facts=facts, health=lambda: HEALTH) as page,
        Camera(page, classify, (20, 90, 160)) as camera,
    ):
        tab = opened(page.url)
        tab.wait_for_selector("body[data-state=live]")
        assert tab.locator("#stalled").is_hidden()
        camera.pause()
        text = "camera 0 gives no new frame: it was unplugged; it is being opened again."
        note = Note(at_ns=monotonic_ns(), level="error", text=text)
        page.report(SourceStatus(state="stalled", detail=text, captured=90, faults=1, size=(640, 360)), [note])
        tab.wait_for_selector("body[data-state=stalled]")
        assert tab.locator("#stalled").inner_text().startswith("Stalled since ")
        filtered = "() => getComputedStyle(document.getElementById('picture')).filter.includes('grayscale(1)')"
        tab.wait_for_function(filtered)
        tab.wait_for_function("text => document.getElementById('banner').innerText === text", arg=text)
        tab.wait_for_function("text => document.getElementById('log').innerText.includes(text)", arg=text)
        tab.screenshot(path=tmp_path / "stalled.png", full_page=True)
        camera.resume()
        tab.wait_for_selector("body[data-state=live]")
        assert tab.locator("#stalled").is_hidden()
        assert tab.locator("#banner").is_hidden()


def test_an_inference_that_stops_is_shown_as_stalled_without_anyone_saying_so(opened, facts, classify):
    with (
        serve("127.0.0.1:0", facts=facts, health=lambda: HEALTH) as page,
        Camera(page, classify, (20, 90, 160)) as camera,
    ):
        tab = opened(page.url)
        tab.wait_for_selector("body[data-state=live]")
        camera.pause()
        tab.wait_for_selector("body[data-state=stalled]")


def test_a_lost_connection_is_said_and_comes_back_by_itself(opened, facts, classify, tmp_path):
    page = serve("127.0.0.1:0", facts=facts, health=lambda: HEALTH)
    tab = opened(page.url, may_fail=True)
    with page, Camera(page, classify, (20, 90, 160)):
        tab.wait_for_selector("body[data-state=live]")
    tab.wait_for_selector("body[data-state=ended]")
    assert "The program has ended" in tab.locator("#banner").inner_text()
    address = page.url.removeprefix("http://").strip("/")
    renamed = dataclasses.replace(facts, model="another")
    with serve(address, facts=renamed, health=lambda: HEALTH) as again, Camera(again, classify, (20, 90, 160)):
        tab.wait_for_selector("body[data-state=live]")
        assert tab.locator("#model").inner_text() == "another"
        assert tab.locator("#banner").is_hidden()
        again._loop.call_soon_threadsafe(again._cut_off)  # as when a network goes away
        tab.wait_for_selector("body[data-state=lost]")
        assert tab.locator("#banner").inner_text().startswith("Connection lost; trying again.")
        tab.wait_for_selector("body[data-state=live]")


def test_the_token_opens_the_page_and_leaves_the_address(opened, facts, classify):
    token = "a-token-of-the-tests"  # noqa: S105 - of the tests
    with (
        serve("127.0.0.1:0", facts=facts, token=token, health=lambda: HEALTH) as page,
        Camera(page, classify, (20, 90, 160)),
    ):
        assert "needs its token" in opened(page.url, may_fail=True).locator("body").inner_text()
        tab = opened(page.link)
        tab.wait_for_selector("body[data-state=live]")
        assert tab.url == page.url
        assert token not in tab.evaluate("document.cookie")
        again = tab.context.new_page()  # the cookie opens it
        again.goto(page.url)
        again.wait_for_selector("body[data-state=live]")

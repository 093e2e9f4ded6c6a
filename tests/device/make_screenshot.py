"""Make the pictures of docs/how-to/watch-live.md; needs Chromium, playwright and an artifact of an ImageNet classifier.

Run it as `python tests/device/make_screenshot.py ARTIFACT PHOTO OUT_FOLDER`. It looks over the photo as a camera would.
The pictures in the documentation show EfficientNet-Lite0 and the photo of a cup of coffee of scikit-image (CC0).
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from itertools import count
from math import sin
from pathlib import Path
from time import monotonic_ns, sleep

from playwright.sync_api import sync_playwright

from edgeclf_device import Classifier
from edgeclf_device.decisions import Hysteresis, MovingAverage, Rule
from edgeclf_device.health import Health
from edgeclf_device.images import load
from edgeclf_device.sources import Frame, Note, SourceStatus
from edgeclf_device.streaming import stream
from edgeclf_device.web import Page, facts_of, serve

FPS = 20
BOARD = Health(
    temperature_c=58.4,
    throttled=(),
    frequency_mhz=1800.0,
    governor="ondemand",
    load_1_min=1.12,
    free_memory_mib=2871,
)
RULE = Rule(window=MovingAverage(frames=5), hysteresis=Hysteresis(enter=0.5, leave=0.3))


class Photo:
    """A camera that looks over a photo."""

    description = "picamera2 camera 0"

    def __init__(self, path: Path) -> None:
        self.image = load(path)
        self.stop = threading.Event()

    def __iter__(self) -> Iterator[Frame]:
        height, width = self.image.shape[:2]
        for index in count():
            if self.stop.is_set():
                return
            sleep(1 / FPS)
            left = round((sin(index / 25) + 1) / 2 * width * 0.1)
            image = self.image[: height * 9 // 10, left : left + width * 9 // 10]
            yield Frame(
                image=image,
                color="rgb",
                index=index,
                name=f"camera#{index}",
                capture_ms=2.4,
                captured_ns=monotonic_ns(),
            )

    def status(self, index: int) -> SourceStatus:
        """As a camera of 30 frames a second says it."""
        size = (self.image.shape[1] * 9 // 10, self.image.shape[0] * 9 // 10)
        return SourceStatus(state="live", captured=index + index // 2, dropped=index // 2, size=size, fps=30.0)


def publish(page: Page, classify: Classifier, photo: Photo) -> None:
    """Show what is seen."""
    for event in stream(classify, photo, rule=RULE):  # type: ignore[arg-type]
        index = event.frame.index
        notes = [Note(at_ns=monotonic_ns(), level="info", text="picamera2 camera 0 is open.")] if index == 0 else []
        page.publish(event, photo.status(index), notes)


def main(artifact: str, photo_file: str, out: str) -> None:
    """Take the pictures."""
    photo = Photo(Path(photo_file))
    with (
        Classifier.open(artifact) as classify,
        serve("127.0.0.1:0", facts=facts_of(classify, photo.description), health=lambda: BOARD) as page,
        sync_playwright() as playwright,
    ):
        thread = threading.Thread(target=publish, args=(page, classify, photo))
        thread.start()
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        desk = browser.new_page(viewport={"width": 1200, "height": 800})
        hand = browser.new_page(
            viewport={"width": 360, "height": 780}, device_scale_factor=2, is_mobile=True, color_scheme="dark"
        )
        for tab in (desk, hand):
            tab.goto(page.url)
            tab.wait_for_selector("body[data-state=live]")
            tab.wait_for_timeout(4000)
        desk.screenshot(path=f"{out}/live-page.jpg", type="jpeg", quality=80, full_page=True)
        hand.screenshot(path=f"{out}/live-page-phone.jpg", type="jpeg", quality=75)
        photo.stop.set()
        thread.join()
        reason = "picamera2 camera 0 gave no frame for 1 s; it is being opened again."
        note = Note(at_ns=monotonic_ns(), level="warning", text=reason)
        page.report(SourceStatus(state="stalled", detail=reason, captured=210, dropped=70, faults=1), [note])
        desk.wait_for_selector("body[data-state=stalled]")
        desk.wait_for_timeout(3000)
        desk.screenshot(path=f"{out}/live-page-stalled.jpg", type="jpeg", quality=80, full_page=True)
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])

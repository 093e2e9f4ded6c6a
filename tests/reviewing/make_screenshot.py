"""Make the picture of docs/how-to/bring-hard-images-back.md; needs Chromium and playwright.

Run it as `python tests/reviewing/make_screenshot.py DIR LABELS OUT PICTURE`; DIR is what `classify --keep-hard` kept.
The picture in the documentation shows crops of the photos of a cup, a cat and a rocket of scikit-image (CC0).
"""

from __future__ import annotations

import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

import edgeclf


def main(folder: str, labels: str, out: str, picture: str) -> None:
    """Decide a few images by their guess, and take the picture."""
    with (
        edgeclf.review(Path(folder), out=Path(out), labels=Path(labels), address="127.0.0.1:0") as page,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        desk = browser.new_page(viewport={"width": 1100, "height": 680})
        hand = browser.new_page(
            viewport={"width": 360, "height": 740}, device_scale_factor=2, is_mobile=True, color_scheme="dark"
        )
        desk.goto(page.url)
        ready = desk.locator("#skip:not([disabled])")
        for key in ("Enter", "Enter", "Enter", "Space", "Delete"):
            ready.wait_for()
            desk.keyboard.press(key)
        ready.wait_for()
        desk.screenshot(path=picture, type="jpeg", quality=80)
        hand.goto(page.url)
        hand.locator("#skip:not([disabled])").wait_for()
        hand.screenshot(path=str(Path(picture).with_suffix(".phone.png")))
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])

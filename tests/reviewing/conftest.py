"""A folder as a device leaves it, and a page on which it is reviewed, asked over HTTP."""

from __future__ import annotations

import contextlib
import http.client
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("uvicorn", reason="NO REVIEW TESTED: uvicorn is not installed")
cv2 = pytest.importorskip("cv2", reason="NO REVIEW TESTED: OpenCV is not installed")

from edgeclf.reviewing.review import review  # noqa: E402 - after what it needs

LABELS = ("dünkel", "hell", "ひび割れ")


def picture(seed: int, *, bright: bool = False) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, 100, (40, 50, 3)) + 130 * bright
    return pixels.astype(np.uint8)


def write(path: Path, seed: int, *, unsure: float | None = None, label: str = "hell") -> Path:
    """A PNG and, where ``unsure`` is given, its record."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", picture(seed))[1].tobytes())
    if unsure is not None:
        record = {
            "format": [1, 0],
            "time": "2026-01-01T00:00:00.000+00:00",
            "source": "camera 0",
            "name": path.name,
            "index": seed,
            "label": label,
            "score": 1 - unsure / 2,
            "top": [{"label": label, "score": 1 - unsure / 2}, {"label": "dünkel", "score": unsure / 2}],
            "measure": "margin",
            "unsure": unsure,
            "artifact": "0" * 64,
            "look": "00" * 256,
        }
        path.with_suffix(".json").write_text(json.dumps(record))
    return path


@pytest.fixture
def hard(tmp_path) -> Path:
    """Four images, shown in the order c, a, b, d."""
    folder = tmp_path / "hard"
    write(folder / "a.png", 1, unsure=0.5)
    write(folder / "sub" / "b.png", 2, unsure=0.2)
    write(folder / "c.png", 3, unsure=0.9, label="ひび割れ")
    write(folder / "d.png", 4)
    return folder


@pytest.fixture
def labels(tmp_path) -> Path:
    path = tmp_path / "labels.txt"
    path.write_text("\n".join(LABELS) + "\n", "utf-8")
    return path


class Person:
    """Reviews through HTTP as the page does."""

    def __init__(self, page) -> None:
        self.page = page
        self.address = page.url.removeprefix("http://").strip("/")

    def ask(self, method, path, body=None, **headers):
        """(status, headers, body) of one request."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"Content-Type": "application/json"} if data is not None else {}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection(self.address, timeout=30)
        with contextlib.closing(connection):
            connection.request(method, path, data, sent)
            response = connection.getresponse()
            return response.status, response.headers, response.read()

    def got(self, method, path, body=None):
        status, _, answer = self.ask(method, path, body)
        assert status == 200, answer.decode()
        return json.loads(answer)

    def next(self, after=-1):
        return self.got("GET", f"/next?after={after}")

    def decide(self, number, label, *, new=False):
        return self.got("POST", "/decide", {"number": number, "label": label, "new": new})

    def undo(self, number):
        return self.got("POST", "/undo", {"number": number})

    def refused(self, path, body):
        """(status, the sentence) of what is not done."""
        status, _, answer = self.ask("POST", path, body)
        assert status >= 400, answer
        return status, answer.decode().strip()


@pytest.fixture
def reviewing(hard, labels, tmp_path):
    """Opens a review of ``hard`` into ``tmp_path/out``."""
    with contextlib.ExitStack() as stack:

        def open_review(folder=hard, out=tmp_path / "out", labels=labels, **options):
            page = stack.enter_context(review(folder, out=out, labels=labels, address="127.0.0.1:0", **options))
            return Person(page)

        yield open_review

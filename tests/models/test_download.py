from __future__ import annotations

import hashlib
import http.server
import socket
import threading
import time
from functools import partial

import pytest

from edgeclf.models import download
from edgeclf_device.errors import DependencyError

pytestmark = pytest.mark.tensorflow
CONTENT = b"weights" * 1000
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch, keras):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache" / "models"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path):
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "w.h5").write_bytes(CONTENT)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path / "served")) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{made.server_port}/w.h5"
        made.shutdown()


def test_a_file_is_fetched_silently_once_and_then_comes_from_the_cache(server, cache, tmp_path, capfd):
    path = download.fetched(server, MD5)
    assert path == cache / "w.h5"
    assert path.read_bytes() == CONTENT
    (tmp_path / "served" / "w.h5").unlink()
    assert download.fetched(server, MD5) == path
    assert not capfd.readouterr().out


def test_other_bytes_than_published_are_refused(server):
    with pytest.raises(DependencyError, match="hash"):
        download.fetched(server, "0" * 32)


def test_a_missing_file_is_named_with_what_to_do(server):
    with pytest.raises(DependencyError, match=r"404.*Fetch http.*gone\.h5.*--weights gone\.h5"):
        download.fetched(server.replace("w.h5", "gone.h5"), MD5)


def test_a_host_that_does_not_answer_is_given_up(cache):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.perf_counter()
        with pytest.raises(DependencyError, match="could not be fetched"):
            download.fetched(f"http://127.0.0.1:{silent.getsockname()[1]}/w.h5", MD5, timeout_s=0.3)
        assert time.perf_counter() - start < 5
    assert not cache.exists()

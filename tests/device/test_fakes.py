"""The fakes stand in for real cameras: here MJPEG over HTTP, read by the source that real cameras are read by."""

from __future__ import annotations

import base64
import itertools
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeclf_device import DataError, DependencyError, open_source
from edgeclf_device.fakes import Fault, FaultyCamera, MjpegServer, StreamFault
from edgeclf_device.sources.capture import LostError, TornError
from edgeclf_device.sources.mjpeg import MAX_PICTURE_BYTES, JpegSplitter

cv2 = pytest.importorskip("cv2")

SIZE = (96, 64)
DETECTED_S, RECOVERED_S = 2.0, 5.0


def jpeg(value=0, quality=90, flags=()):
    noise = np.random.default_rng(value).integers(0, 256, (64, 96, 3), np.uint8)
    return cv2.imencode(".jpg", noise, [cv2.IMWRITE_JPEG_QUALITY, quality, *flags])[1].tobytes()


PICTURES = [jpeg(0), jpeg(1, quality=5), jpeg(2, flags=(cv2.IMWRITE_JPEG_PROGRESSIVE, 1)), jpeg(3)]
RESTARTS = jpeg(4, flags=(cv2.IMWRITE_JPEG_RST_INTERVAL, 2))


def split(pieces):
    """(pictures, how many were torn) of a stream that arrives in pieces."""
    splitter, found, torn = JpegSplitter(), [], 0
    for now_ns, piece in enumerate(pieces):
        splitter.feed(piece, now_ns)
        while True:
            try:
                taken = splitter.take()
            except TornError:
                torn += 1
                continue
            if taken is None:
                break
            found.append(taken[0])
    return found, torn


def part(data, length=None):
    return b"--b\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%b\r\n" % (length or len(data), data)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_pictures_are_found_however_the_stream_is_cut_into_pieces(data):
    stream = b"".join(map(part, [*PICTURES, RESTARTS]))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=30)))
    pieces = [stream[a:b] for a, b in itertools.pairwise([0, *cuts, len(stream)])]
    assert split(pieces) == ([*PICTURES, RESTARTS], 0)


@given(st.integers(1, len(PICTURES[0]) - 2))
@settings(deadline=None)
def test_a_picture_cut_anywhere_is_never_taken_for_whole_and_the_stream_goes_on(cut):
    """Cut within its headers, it may cost pictures too: a length there can lead up to 64 KiB on."""
    following = PICTURES[1:] * 12
    found, _ = split([part(PICTURES[0][:cut]) + b"".join(map(part, following))])
    lost_bytes = sum(map(len, following)) - sum(map(len, found[-len(following) :]))
    assert lost_bytes < (64 << 10) + 2 * len(PICTURES[0])
    assert found[-1] == PICTURES[-1]
    whole = [one for one in found if one not in PICTURES]
    assert all(cv2.imdecode(np.frombuffer(one, np.uint8), 1) is None or len(one) > cut for one in whole)


def test_a_cut_within_the_compressed_data_is_seen_at_the_next_picture():
    assert split([part(PICTURES[0][:-700]) + part(PICTURES[1])]) == ([PICTURES[1]], 1)


def test_a_picture_has_the_time_at_which_its_first_byte_arrived_and_is_there_with_its_last():
    splitter = JpegSplitter()
    stream = part(PICTURES[0])
    splitter.feed(stream[:200], 100)
    assert splitter.take() is None
    splitter.feed(stream[200:-2], 200)  # the line end behind the picture is not waited for
    assert splitter.take() == (PICTURES[0], 100)


def test_what_never_becomes_a_picture_does_not_fill_the_memory():
    with pytest.raises(LostError):
        split([b"X-Endless: a\r\n" * 1000] * 10)
    found, torn = split([PICTURES[0][:-2], *[bytes(1 << 20)] * (MAX_PICTURE_BYTES // (1 << 20)), part(PICTURES[1])])
    assert (found, torn) == ([PICTURES[1]], 1)


@given(st.binary(max_size=3000))
def test_any_bytes_are_survived(data):
    split([data, b"\xff\xd8\xff" + data])


@pytest.fixture
def server():
    with MjpegServer(size=SIZE, fps=60) as server:
        yield server


@pytest.mark.parametrize("kind", ["stall", "disconnect", "repeat", "headers"])
def test_a_fault_of_a_stream_is_detected_and_recovered_from(server, kind):
    with open_source(server.url) as source:
        frames = iter(source)
        last = [next(frames).index for _ in range(10)][-1]
        server.inject(StreamFault(kind=kind, seconds=1.4))
        begin = time.monotonic()
        while not source.status().faults:
            assert time.monotonic() - begin < DETECTED_S
            time.sleep(0.01)
        begin = time.monotonic()
        while not source.status().recoveries:
            assert time.monotonic() - begin < RECOVERED_S
            time.sleep(0.01)
        frame = next(frames)
        assert frame.index > last
        assert time.monotonic_ns() - frame.captured_ns < 1e9


@pytest.mark.parametrize(("kind", "torn"), [("torn", 1), ("length", 0), ("resize", 0)])
def test_a_fault_of_one_picture_does_not_end_a_stream(server, kind, torn):
    with open_source(server.url) as source:
        frames = iter(source)
        list(itertools.islice(frames, 5))
        server.inject(StreamFault(kind=kind, size=(32, 16)))
        shapes = [frame.image.shape for frame in itertools.islice(frames, 30)]
        status = source.status()
    assert (status.torn, status.faults, server.connections) == (torn, 0, 1)
    assert shapes[-1] == ((16, 32, 3) if kind == "resize" else (64, 96, 3))
    assert ("resolution" in {note.kind for note in source.take_notes()}) == (kind == "resize")


def test_nothing_is_asked_of_a_server_before_the_source_is_entered(server):
    source = open_source(server.url)
    time.sleep(0.1)
    assert server.connections == 0
    assert source.status().state == "starting"
    with source:
        assert server.connections == 1


def test_a_stream_with_a_password_is_opened_with_it_alone():
    with MjpegServer(size=SIZE, credentials="admin:s3cr et") as server:
        with pytest.raises(DependencyError, match="401") as caught, open_source(server.url):
            pass
        assert "NAME:PASSWORD" in str(caught.value)
        wrong = server.url.replace("://", "://admin:wr0ng@")
        with pytest.raises(DependencyError, match="401") as caught, open_source(wrong):
            pass
        assert "wr0ng" not in str(caught.value)
        with open_source(server.url.replace("://", "://admin:s3cr%20et@")) as source:
            frame = next(iter(source))
            said = f"{source.description} {frame.name} {source.status()} {source.take_notes()}"
    assert "s3cr" not in said
    assert base64.b64encode(b"admin:s3cr et").decode() not in said


def test_a_stream_that_is_not_there_is_an_error():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(DependencyError, match="does not answer"), open_source(f"http://127.0.0.1:{port}/stream"):
        pass


def test_a_page_is_no_stream():
    def answer(listener):
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n<html>")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=answer, args=(listener,), daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        with pytest.raises(DataError, match="text/html"), open_source(url):
            pass


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    folder = tmp_path_factory.mktemp("tls")
    subject = ["-subj", "/CN=camera", "-addext", "subjectAltName=IP:127.0.0.1"]
    keys = ["-newkey", "rsa:2048", "-nodes", "-keyout", folder / "key.pem", "-out", folder / "cert.pem"]
    subprocess.run(["openssl", "req", "-x509", "-days", "1", *keys, *subject], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context, folder / "cert.pem"


def test_a_certificate_that_can_not_be_verified_is_refused_and_one_that_can_is_not(tls, monkeypatch):
    context, certificate = tls
    with MjpegServer(size=SIZE, tls=context) as server:
        assert server.url.startswith("https://")
        with pytest.raises(DependencyError, match="SSL_CERT_FILE"), open_source(server.url):
            pass
        monkeypatch.setitem(os.environ, "SSL_CERT_FILE", str(certificate))
        with open_source(server.url) as source:
            frames = iter(source)
            assert next(frames).image.shape == (64, 96, 3)
            server.inject(StreamFault(kind="stall", seconds=30))
            while source.status().state != "stalled":
                time.sleep(0.01)
            assert next(frames).image.shape == (64, 96, 3)


def test_a_faulty_camera_follows_its_script():
    camera = FaultyCamera(fps=500, script={2: Fault(kind="torn", pictures=2), 4: Fault(kind="unplug", seconds=0.05)})
    capture = camera.open()
    seen = []
    for _ in range(7):
        try:
            seen.append(type(capture.read()).__name__)
        except (TornError, LostError) as error:  # noqa: PERF203 - seven reads
            seen.append(type(error).__name__)
    assert seen == ["Shot", "Shot", "TornError", "TornError", "Shot", "Shot", "LostError"]
    with pytest.raises(DependencyError):
        camera.open()
    time.sleep(0.06)
    camera.open().read()

"""A network camera: GStreamer's own RTSP server on 127.0.0.1, in Debian's Python."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time

import pytest

from edgeclf_device import open_source

pytestmark = pytest.mark.slow
pytest.importorskip("cv2", reason="RTSP IS NOT TRIED: OpenCV is not installed")

PYTHON = "/usr/bin/python3"
SERVER = """
import sys
import gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer
Gst.init(None)
server = GstRtspServer.RTSPServer(address="127.0.0.1", service=sys.argv[1])
camera = GstRtspServer.RTSPMediaFactory(shared=True)
picture = "videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=240,framerate=15/1"
coded = "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=5 ! rtph264pay name=pay0"
camera.set_launch(f"( {picture} ! {coded} )")
server.get_mount_points().add_factory("/camera", camera)
server.attach(None)
print("ready", flush=True)
GLib.MainLoop().run()
"""
NEEDED = """
import gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gst
Gst.init(None)
assert all(Gst.ElementFactory.find(name) for name in ("videotestsrc", "x264enc", "rtph264pay"))
"""
PACKAGES = "python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-{base,good,ugly}"


@pytest.fixture(scope="module", autouse=True)
def gstreamer():
    try:
        done = subprocess.run([PYTHON, "-c", NEEDED], capture_output=True, check=False)
    except OSError:
        done = None
    if done is None or done.returncode:
        pytest.skip(f"RTSP IS NOT TRIED AGAINST A SERVER: apt-get install {PACKAGES}")


@contextlib.contextmanager
def serving(port):
    with subprocess.Popen([PYTHON, "-c", SERVER, str(port)], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout.readline() == "ready\n"
        try:
            yield server
        finally:
            server.kill()


def until(condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_frames_of_a_real_server_are_fresh_and_come_again_after_it_was_started_anew():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with contextlib.ExitStack() as first:
        first.enter_context(serving(port))
        with open_source(f"rtsp://127.0.0.1:{port}/camera") as source:
            frames = iter(source)
            seen = [next(frames) for _ in range(5)]
            assert all(frame.image.shape == (240, 320, 3) for frame in seen)
            assert len({frame.image.tobytes() for frame in seen}) == len(seen)
            first.close()
            until(lambda: source.status().state == "stalled", 4)
            with serving(port):
                until(lambda: source.status().recoveries, 15)
                again = next(frames)
                assert again.index > seen[-1].index
                assert time.monotonic_ns() - again.captured_ns < 1e9

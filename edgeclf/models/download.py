"""Fetches a published weight file once, into the cache that Keras keeps such files in."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from edgeclf_device.errors import DependencyError, first_line

_ANSWER_TIMEOUT_S = 15.0


def fetched(url: str, md5: str | None, *, timeout_s: float = _ANSWER_TIMEOUT_S) -> Path:
    """Return the file at ``url``, from Keras's cache (``~/.keras/models``, or below ``KERAS_HOME``) or fetched into it.

    Raises:
        DependencyError: the host does not answer within ``timeout_s``, refuses, or gives other bytes than ``md5``
            says; the message names the file to fetch elsewhere.
    """
    import keras

    home = Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser()
    name = Path(urlsplit(url).path).name
    try:
        if not (home / "models" / name).exists():
            _require_answer(url, timeout_s)
        with _quiet_and_impatient(timeout_s):
            path = keras.utils.get_file(name, url, cache_dir=home, cache_subdir="models", file_hash=md5)
    except Exception as error:  # Keras raises a bare Exception for a failed download
        raise DependencyError(
            f"The ImageNet weights could not be fetched ({first_line(error)}). Fetch {url} on a machine that reaches "
            f"it and give the file: --weights {name}; or start without them: --weights none."
        ) from error
    return Path(path)


def _require_answer(url: str, timeout_s: float) -> None:
    """Raise OSError unless the host answers in time. In a thread, because looking up its name knows no time limit."""
    errors: list[Exception] = []

    def ask() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")  # noqa: S310 - a constant of this package
            with urllib.request.urlopen(request, timeout=timeout_s):  # noqa: S310
                pass
        except Exception as error:  # noqa: BLE001 - raised below, in the thread that asked
            errors.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(1.5 * timeout_s)
    if thread.is_alive():
        raise TimeoutError(f"no answer within {1.5 * timeout_s:.0f} s")
    if errors:
        raise errors[0]


@contextlib.contextmanager
def _quiet_and_impatient(timeout_s: float) -> Iterator[None]:
    """Let Keras neither print its own progress nor wait for ever for a host that fell silent."""
    import keras

    talks, patience = keras.config.is_interactive_logging_enabled(), socket.getdefaulttimeout()
    keras.config.disable_interactive_logging()
    socket.setdefaulttimeout(timeout_s)
    try:
        yield
    finally:
        socket.setdefaulttimeout(patience)
        if talks:
            keras.config.enable_interactive_logging()

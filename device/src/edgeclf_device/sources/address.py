"""What stands behind ``KIND:``: a target, options as in ``?size=1280x720&fps=30``, and URLs that are shown bare."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from edgeclf_device.errors import UsageError
from edgeclf_device.sources.capture import Capture
from edgeclf_device.sources.live import Live


def split_options(kind: str, rest: str, allowed: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """(target, options) of ``TARGET?option=value&…``.

    Args:
        kind: for messages.
        rest: what stood behind ``kind:``.
        allowed: the options there are, each with an example of a value.

    Raises:
        UsageError: an option is unknown or given twice.
    """
    target, _, query = rest.partition("?")
    pairs = parse_qsl(query, keep_blank_values=True)
    options = dict(pairs)
    if len(options) < len(pairs) or not options.keys() <= allowed.keys():
        known = ", ".join(f"{name}={example}" for name, example in allowed.items())
        raise UsageError(f"{kind}: takes each of the options {known} once, but it was given ?{query}.")
    return target, options


def size_option(kind: str, options: Mapping[str, str], default: tuple[int, int] | None) -> tuple[int, int] | None:
    """(width, height) of ``size=1280x720``.

    Raises:
        UsageError: it is no size.
    """
    if "size" not in options:
        return default
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", options["size"])
    if match is None:
        raise UsageError(f"{kind}: size must be WIDTHxHEIGHT, for example 1280x720, but it is {options['size']!r}.")
    return int(match[1]), int(match[2])


def fps_option(kind: str, options: Mapping[str, str], default: float) -> float:
    """Frames a second of ``fps=30``; may be a fraction.

    Raises:
        UsageError: it is no number above 0 and up to 1000.
    """
    text = options.get("fps", str(default))
    if not re.fullmatch(r"\d{1,4}(\.\d{1,6})?", text) or not 0 < float(text) <= 1000:
        raise UsageError(f"{kind}: fps must be a number above 0 and up to 1000, but it is {text!r}.")
    return float(text)


def number_option(kind: str, target: str, default: int = 0) -> int:
    """The number of a camera, as in ``csi:0``.

    Raises:
        UsageError: it is none.
    """
    if not re.fullmatch(r"\d{0,3}", target):
        raise UsageError(f"{kind}: takes the number of a camera, for example {kind}:0, but it was given {target!r}.")
    return int(target or default)


def shown(url: str) -> str:
    """A URL for people: without name, password and query, in which cameras take passwords too."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{re.split('[?#]', rest.rpartition('@')[2])[0]}"


def without_user(url: str) -> tuple[str, str | None, str]:
    """(the URL without name and password, name or None, password).

    Raises:
        UsageError: it names no host, or its port is no number.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
        parts = urlsplit("")
    if not host:
        raise UsageError(
            f"{shown(url)} must name a host, and a number if it names a port; "
            "write @, : and / in a password as %40, %3A and %2F."
        )
    place = (f"[{host}]" if ":" in host else host) + (f":{port}" if port is not None else "")
    bare = urlunsplit((parts.scheme, place, parts.path, parts.query, ""))
    return bare, None if parts.username is None else unquote(parts.username), unquote(parts.password or "")


def live_stream(url: str, connect: Callable[[str], Capture]) -> Live:
    """The source at a URL, shown without its password; ``connect`` is called with the whole URL on entering.

    Raises:
        UsageError: it names no host.
    """
    bare, _, _ = without_user(url)
    return Live(f"stream {shown(url)}", urlsplit(bare).hostname or "", partial(connect, url))

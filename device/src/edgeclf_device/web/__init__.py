"""The live page: what the classifier sees and says, in a browser."""

from __future__ import annotations

from collections.abc import Callable

from edgeclf_device.errors import DependencyError
from edgeclf_device.health import Health, read_health
from edgeclf_device.images import import_cv2
from edgeclf_device.web.facts import Facts, facts_of
from edgeclf_device.web.hub import Hub, Keeping
from edgeclf_device.web.page import Page

__all__ = ["Facts", "Page", "facts_of", "serve"]


def serve(
    address: str,
    *,
    facts: Facts,
    allow_remote: bool = False,
    token: str | None = None,
    health: Callable[[], Health] = read_health,
    keeping: Keeping | None = None,
) -> Page:
    """Serve the live page from a thread of its own, until the page is closed.

    Args:
        address: ``HOST:PORT``, for example ``127.0.0.1:8080`` or ``[::1]:8080``; port 0 takes any free one.
        facts: what stands in the page's head.
        allow_remote: let other machines reach it; they must know the token.
        token: what a visitor must show; ``auto`` makes one. At least 16 letters, digits, ``-``, ``.``, ``_``, ``~``.
        health: asked for the board's state every two seconds.
        keeping: what keeps hard frames, for the metrics.

    Returns:
        The page, a context manager; ``page.url`` is where it is.

    Raises:
        UsageError: no such address, a host beyond loopback without ``allow_remote`` and a token, or a weak token.
        SystemStateError: the port is taken, or the system refuses it.
        DependencyError: Starlette, uvicorn or OpenCV is not installed.
    """
    import_cv2("The live page's picture")
    try:
        from edgeclf_device.web.server import open_page
    except ImportError as error:
        raise DependencyError(
            f"The live page needs Starlette and uvicorn, which do not import here ({error}): "
            'pip install "edgeclf-device[web,camera]".'
        ) from error
    hub = Hub(facts, keeping)
    return open_page(address, hub=hub, allow_remote=allow_remote, token=token, health=health)

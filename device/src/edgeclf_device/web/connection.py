"""One connection of a viewer: nothing is held back for it, and it can't be held without being used."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS = 128
"""Further ones are closed at once: viewers must not use up the file descriptors that a camera needs."""

REQUEST_TIMEOUT_S = 10.0
"""A connection that asks nothing for this long from its beginning is closed."""

SEND_TIMEOUT_S = 10.0
"""A viewer that takes nothing for this long, though something waits for it, is cut off."""


class Connection(H11Protocol):
    """HTTP/1.1 with a deadline for the first request and for every wait until a viewer takes what was sent.

    Args:
        cut_off: called when a viewer is cut off because it takes nothing.
        uvicorn_s: what uvicorn gives.
    """

    def __init__(self, *, cut_off: Callable[[], None], **uvicorn_s: Any) -> None:
        super().__init__(**uvicorn_s)
        self._cut_off = cut_off
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Of asyncio: a viewer has come."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # pause_writing as soon as the kernel does not take everything
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
        else:
            self._set_deadline(REQUEST_TIMEOUT_S, self._close_unused)

    def connection_lost(self, exc: Exception | None) -> None:
        """Of asyncio: it has gone."""
        self._set_deadline()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Of asyncio: it is slower than what is sent."""
        super().pause_writing()
        self._set_deadline(SEND_TIMEOUT_S, self._close_stalled)

    def resume_writing(self) -> None:
        """Of asyncio: it has taken everything."""
        super().resume_writing()
        self._set_deadline()

    def _set_deadline(self, after_s: float = 0.0, then: Callable[[], None] | None = None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if then is None else self.loop.call_later(after_s, then)

    def _close_unused(self) -> None:
        if self.cycle is None:
            self.transport.abort()

    def _close_stalled(self) -> None:
        self._cut_off()
        self.transport.abort()

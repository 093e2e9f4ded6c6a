"""The live page, served."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from edgeclf_device.health import Health
from edgeclf_device.sources import Note, SourceStatus
from edgeclf_device.streaming import Event
from edgeclf_device.web.hub import Hub
from edgeclf_device.web.served import Opened, Served

ReadHealth = Callable[[], Health]


class Page(Served):
    """The live page. A context manager; made by ``serve``."""

    def __init__(self, hub: Hub, opened: Opened, *, health: ReadHealth) -> None:
        self._hub = hub
        self._health = health
        super().__init__(opened)

    def publish(self, event: Event, status: SourceStatus | None = None, notes: Sequence[Note] = ()) -> None:
        """Show an event. From one thread; takes microseconds, and waits for no viewer.

        Args:
            event: replaces the one before it, seen or not. Its frame's pixels must not change afterwards.
            status: of the source; None leaves what was last known.
            notes: for the event log.
        """
        self._hub.publish(event, status, notes)

    def report(self, status: SourceStatus | None = None, notes: Sequence[Note] = ()) -> None:
        """Show how the source is while no frame comes. From any thread."""
        self._hub.report(status, notes)

    def close(self) -> None:
        """Send the viewers away and end the thread, within a second. Closing twice does no harm."""
        self._hub.close()
        super().close()

    def __enter__(self) -> Page:
        return self

    async def _beside(self) -> None:
        self._hub.attach(asyncio.get_running_loop())
        await self._hub.watch_health(self._health)

"""Tell systemd that the service is ready and alive: its notification protocol, with the standard library alone.

The protocol is that of ``sd_notify(3)`` and ``sd_watchdog_enabled(3)``.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from time import monotonic_ns


def notify(*assignments: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Send assignments, for example ``"READY=1", "STATUS=solar at 30 fps"``, to the service manager.

    It never waits and never raises: a service goes on where its manager does not listen.

    Returns:
        whether they were sent; False where no service manager started this process.
    """
    address = environment.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):  # Linux's abstract sockets begin with a zero byte
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.setblocking(False)
            channel.sendto("\n".join(assignments).encode(), address)
    except OSError:
        return False
    return True


class Watchdog:
    """Beats while frames are classified. When they stop, the beats stop, and systemd starts the service again.

    Attributes:
        interval_ns: between beats, a third of what systemd waits (``WatchdogSec=``); None where it does not wait for
            this process.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        wanted = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        limit_us = int(environment.get("WATCHDOG_USEC", "0")) if wanted else 0
        self.interval_ns: int | None = limit_us * 1000 // 3 or None
        self._environment = environment
        self._due_ns = 0

    def beat(self) -> None:
        """Say that a frame was classified just now. Call it for each: it sends only as often as is needed."""
        if self.interval_ns is None:
            return
        now_ns = monotonic_ns()
        if now_ns >= self._due_ns and notify("WATCHDOG=1", environment=self._environment):
            self._due_ns = now_ns + self.interval_ns

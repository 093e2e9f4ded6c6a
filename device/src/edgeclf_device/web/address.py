"""Where the page is served: ``HOST:PORT`` read, judged and bound."""

from __future__ import annotations

import errno
import ipaddress
import re
import socket
from dataclasses import dataclass

from edgeclf_device.errors import SystemStateError, UsageError

BACKLOG = 32
UNSENT_BYTES = 16_384
"""How much the kernel may hold of what a viewer has not taken yet: old news for a slow one, so little."""

_FORM = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[^:\[\]/@\s]+)):(?P<port>[0-9]{1,5})")


@dataclass(frozen=True, kw_only=True)
class Address:
    """A host and port to listen on.

    Attributes:
        host: as given, without brackets.
        port: 0 for any free one.
        family: of ``number``, the host's IP address.
    """

    host: str
    port: int
    family: socket.AddressFamily
    number: str

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return ipaddress.ip_address(self.number.partition("%")[0]).is_loopback


def parse_address(text: str) -> Address:
    """Read ``HOST:PORT``, where HOST is a name, an IPv4 address or ``[IPv6]``.

    Raises:
        UsageError: it is not of that form, or no such host is known.
    """
    found = _FORM.fullmatch(text)
    if found is None or int(found["port"]) > 65535:
        raise UsageError(
            f"The page's address must be HOST:PORT, but it is {text!r}; for example 127.0.0.1:8080, [::1]:8080, "
            "or 0.0.0.0:8080 for every network of this machine."
        )
    host, port = found["six"] or found["host"], int(found["port"])
    try:
        known = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise UsageError(f"The page's host {host!r} is not known here ({error}); give its IP address.") from error
    family, _, _, _, where = min(known, key=lambda entry: entry[0] != socket.AF_INET)
    return Address(host=host, port=port, family=socket.AddressFamily(family), number=str(where[0]))


def bind(address: Address) -> socket.socket:
    """A listening socket.

    Raises:
        SystemStateError: the port is taken, needs rights, or the host is not this machine's.
    """
    listener = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        listener.bind((address.number, address.port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise SystemStateError(_explained(address, error)) from error
    return listener


def _explained(address: Address, error: OSError) -> str:
    host, port = address.host, address.port
    if error.errno == errno.EADDRINUSE:
        return (
            f"Port {port} of {host} is taken by another program; name another (0 takes any free one), "
            f"or find that program with: ss -ltnp 'sport = :{port}'."
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"Port {port} of {host} is not allowed to this user; ports from 1024 upwards are."
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is no address of this machine; use 127.0.0.1, or one that `ip address` lists."
    return f"The page can't be served at {host}, port {port}: {error.strerror or error}; name another address."

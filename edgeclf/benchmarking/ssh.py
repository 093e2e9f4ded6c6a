"""A board reached by the system's own ssh: the user's keys, configuration and known hosts, and never a prompt.

One connection carries everything (ControlMaster), so one authentication serves all. ssh's own failures raise; a command
of the board that fails does not, it is returned. What runs there is always a list of arguments, each of them quoted.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from edgeclf_device.atomic import write_bytes
from edgeclf_device.errors import DependencyError, SystemStateError, UsageError

CONFIG_VARIABLE = "EDGECLF_SSH_CONFIG"
"""Names a configuration file for ssh to read in place of the user's own."""

CONNECT_TIMEOUT_S = 10
ALIVE_INTERVAL_S, ALIVE_COUNT = 5, 3
PERSIST_S = 120
WAITS_S = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
"""Before each further try after a dropped link; the last one from then on."""

_HOST = re.compile(r"(ssh://)?([A-Za-z0-9_.+][A-Za-z0-9_.+-]*@)?[A-Za-z0-9_.:\[][A-Za-z0-9_.:%\[\]-]*")
_SSH_FAILED = 255
_SOCKET_NAME_BYTES = 40 + 18  # %C, and what ssh adds to it while it makes the socket
_SOCKET_MAX_BYTES = 100  # 108 on Linux, 104 on macOS, the end mark included

_REFUSALS = {
    "REMOTE HOST IDENTIFICATION HAS CHANGED": "its key is not the one in known_hosts: if it was set up anew, forget "
    "the old one with `ssh-keygen -R`",
    "Host key verification failed": "this machine does not know its key: run `ssh {name}` once by hand and accept it",
    "Permission denied (": "it accepts none of your keys without a question: run `ssh-copy-id {name}`, and `ssh-add` "
    "where the key has a passphrase",
    "Too many authentication failures": "name the right key with IdentityFile and IdentitiesOnly in ~/.ssh/config",
    "Bad configuration option": "correct the ssh configuration",
    "Bad owner or permissions": "correct the permissions of the ssh configuration",
    "Can't open user config file": "name a file that exists",
    "Unable to negotiate": "its ssh and this machine's have no algorithm in common: update the older one",
}
"""What ssh says when trying again can't help, and what does."""

Result = TypeVar("Result")


class LinkError(DependencyError):
    """The board can't be reached, or the link to it dropped: it may come back."""


class RefusedError(DependencyError):
    """ssh or the board refuses the connection: trying again can't help."""


@dataclass(frozen=True, kw_only=True)
class Completed:
    """What a command of the board gave; 255 appears as 254, for 255 is ssh's own."""

    code: int
    stdout: bytes
    stderr: str


@dataclass(frozen=True, kw_only=True)
class Host:
    """A board by the name that ``ssh`` knows it by. Made by ``connected``; usable from several threads.

    Attributes:
        name: ``board``, ``user@board`` or ``ssh://user@board:port``.
        config: read by ssh in place of ~/.ssh/config; None leaves that.
        socket: of the shared connection; None where no name for it is short enough, and each call connects anew.
    """

    name: str
    config: Path | None = None
    socket: Path | None = None

    def run(self, command: Sequence[str], *, stdin: bytes = b"", timeout_s: float = 60.0) -> Completed:
        """Run a command on the board, each argument quoted; the login shell there may be any.

        Raises:
            LinkError: the board can't be reached, the link dropped, or the time is over.
            RefusedError: ssh refuses, or the board does.
        """
        return self.shell(shlex.join(command), stdin=stdin, timeout_s=timeout_s)

    def shell(self, script: str, *, stdin: bytes = b"", timeout_s: float = 60.0) -> Completed:
        """Run one line of POSIX shell on the board. The caller has quoted what is in it.

        Raises:
            as ``run``.
        """
        guarded = f"({script}); s=$?; test $s -ne {_SSH_FAILED} || s=254; exit $s"
        remote = f"exec /bin/sh -c {shlex.quote(guarded)}"
        try:
            # A session of its own: Ctrl-C is for edgeclf, which then still needs the connection to clean up.
            done = subprocess.run(
                [*self._ssh(), "--", self.name, remote],
                input=stdin,
                capture_output=True,
                timeout=timeout_s,
                check=False,
                start_new_session=True,
            )
        except subprocess.TimeoutExpired as error:
            self.disconnect()
            raise LinkError(
                f"{self.name} must answer within {timeout_s:g} s, but did not; check the network."
            ) from error
        stderr = done.stderr.decode(errors="backslashreplace").strip()
        if done.returncode == _SSH_FAILED or done.returncode < 0:
            raise self._failure(stderr)
        return Completed(code=done.returncode, stdout=done.stdout, stderr=stderr)

    def put(self, file: Path, remote: str, *, timeout_s: float = 600.0) -> None:
        """Copy a file to the board: to a temporary name first, renamed only when all bytes are there.

        Raises:
            SystemStateError: the board can't write it.
            LinkError, RefusedError: as ``run``.
        """
        data = file.read_bytes()
        part = shlex.quote(f"{remote}.{uuid.uuid4().hex}.part")
        # A link that drops ends the input, which cat takes for the end of the file: so the bytes are counted.
        whole = f'test "$(wc -c < {part})" -eq {len(data)}'
        script = f"{{ cat > {part} && {whole} && mv -f {part} {shlex.quote(remote)}; }} || {{ rm -f {part}; exit 1; }}"
        done = self.shell(script, stdin=data, timeout_s=timeout_s)
        if done.code != 0:
            raise SystemStateError(
                f"{file.name} could not be written to {remote} on {self.name}: {done.stderr or 'no reason given'}; "
                "free space there, or set XDG_CACHE_HOME for the board's user."
            )

    def get(self, remote: str, file: Path, *, timeout_s: float = 600.0) -> None:
        """Copy a file from the board; ``file`` appears whole or not at all.

        Raises:
            SystemStateError: the board can't read it, or this machine can't write it.
            LinkError, RefusedError: as ``run``.
        """
        done = self.shell(f"cat < {shlex.quote(remote)}", timeout_s=timeout_s)
        if done.code != 0:
            raise SystemStateError(f"{remote} could not be read on {self.name}: {done.stderr or 'no reason given'}.")
        write_bytes(file, done.stdout)

    def disconnect(self) -> None:
        """End the shared connection, if any; the next call makes another."""
        if self.socket is not None and self.socket.parent.is_dir():
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run(
                    [*self._ssh(), "-O", "exit", "--", self.name], capture_output=True, timeout=10, check=False
                )

    def _ssh(self) -> list[str]:
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": CONNECT_TIMEOUT_S,
            "ServerAliveInterval": ALIVE_INTERVAL_S,
            "ServerAliveCountMax": ALIVE_COUNT,
            "LogLevel": "ERROR",
            # What a user's configuration may add for work at a terminal.
            "RequestTTY": "no",
            "RemoteCommand": "none",
            "PermitLocalCommand": "no",
            "ClearAllForwardings": "yes",
            "ForwardX11": "no",
            **(
                {"ControlMaster": "no", "ControlPath": "none"}
                if self.socket is None
                else {"ControlMaster": "auto", "ControlPersist": PERSIST_S, "ControlPath": _escaped(self.socket)}
            ),
        }
        config = [] if self.config is None else ["-F", str(self.config)]
        return [_program(), *config, *(word for key, value in options.items() for word in ("-o", f"{key}={value}"))]

    def _failure(self, stderr: str) -> LinkError | RefusedError:
        said = f"ssh said: {stderr}" if stderr else "ssh gave no reason"
        for words, remedy in _REFUSALS.items():
            if words in stderr:
                return RefusedError(
                    f"{self.name} must let ssh in without a question, but did not; {remedy.format(name=self.name)}. "
                    f"{said}"
                )
        return LinkError(
            f"{self.name} must be reachable by ssh, but is not; check its name, its power and the network, "
            f"and try `ssh {self.name}`. {said}"
        )


@contextlib.contextmanager
def connected(name: str, *, config: Path | None = None) -> Iterator[Host]:
    """A host with a private folder for its shared connection, which is ended afterwards.

    The connection is made by the first call. ``config``: see ``Host``; None takes $EDGECLF_SSH_CONFIG, if it is set.

    Raises:
        UsageError: ``name`` can't be a host's.
        DependencyError: ssh is not installed.
    """
    check_name(name)
    _program()
    chosen = config or (Path(os.environ[CONFIG_VARIABLE]) if os.environ.get(CONFIG_VARIABLE) else None)
    folder = _socket_folder()
    host = Host(name=name, config=chosen, socket=folder / "%C" if folder else None)
    try:
        yield host
    finally:
        host.disconnect()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def check_name(name: str) -> None:
    """Check that ssh can take ``name`` for a host and for nothing else.

    Raises:
        UsageError: it can't.
    """
    if not _HOST.fullmatch(name):
        raise UsageError(
            "A host must be named as ssh names it (board, user@board or ssh://user@board:port), with no sign that a "
            f"shell or ssh reads as more than a name, and not begin with -, but {name!r} was given; give a host that "
            "needs more an alias in ~/.ssh/config."
        )


def patiently(action: Callable[[], Result], *, until: float, wait: Callable[[float], object] = time.sleep) -> Result:
    """Do ``action`` again and again after a dropped link, waiting longer each time, until ``time.monotonic()`` is over.

    ``action`` must do no harm when it is done twice: the link may drop after it was done and before that was told.

    Raises:
        LinkError: the link did not come back in time.
    """
    tries = 0
    while True:
        try:
            return action()
        except LinkError:
            pause = WAITS_S[min(tries, len(WAITS_S) - 1)]
            if time.monotonic() + pause > until:
                raise
        tries += 1
        wait(pause)


def _socket_folder() -> Path | None:
    """A new private folder whose sockets' names are short enough; None where there is none."""
    for parent in (tempfile.gettempdir(), "/tmp"):  # noqa: S108 - mkdtemp makes it private
        if len(os.fsencode(parent)) + len("/edgeclf-12345678/") + _SOCKET_NAME_BYTES <= _SOCKET_MAX_BYTES:
            with contextlib.suppress(OSError):
                return Path(tempfile.mkdtemp(prefix="edgeclf-", dir=parent))
    return None


def _escaped(socket: Path) -> str:
    """For an option's value: of a path, only its last name is a pattern, and blanks are kept by quotes."""
    return f'"{str(socket.parent).replace("%", "%%")}/{socket.name}"'


def _program() -> str:
    found = shutil.which("ssh")
    if found is None:
        raise DependencyError("Measuring on a host needs ssh, which is not installed here: apt install openssh-client.")
    return found

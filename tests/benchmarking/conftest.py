"""A real sshd on 127.0.0.1, run as the current user with throwaway keys, and tiny artifacts to measure through it."""

from __future__ import annotations

import getpass
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgeclf_device.engines import installed

RELEASED = Path(__file__).parents[1] / "device" / "artifacts"
PACKAGES = ("openssh-server", "libwrap0")
ODD = 'it\'s "a" $(touch pwned) `x`; \\ & 100%\tRiß'
"""For the names of folders and files: whatever a shell would read as more than a name."""

# sshd wants a folder and, of root, a user for its unprivileged part: given to it alone, in a mount namespace.
AS_ROOT = 'mount --bind "$1" /etc/passwd && mount -t tmpfs tmpfs /run && mkdir -m 755 /run/sshd && shift && exec "$@"'


@dataclass(frozen=True)
class Server:
    """The sshd: what it gives, and the folder of its files."""

    folder: Path
    config: Path
    cache: Path
    process: subprocess.Popen[bytes]

    @property
    def work(self) -> Path:
        return self.cache / "edgeclf-bench"

    def drop_links(self) -> int:
        """Kill every process that serves a connection; how many those were."""
        served = sessions(self.process.pid)
        for pid in served:
            subprocess.run(["kill", "-KILL", str(pid)], check=False, capture_output=True)
        return len(served)


def sessions(pid: int) -> list[int]:
    """The sshd processes below ``pid``, which serve connections; what they started is not among them."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    served = [int(child) for child in children if name_of(int(child)).startswith("sshd")]
    return [one for child in served for one in (child, *sessions(child))]


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


@pytest.fixture(scope="session")
def sshd() -> list[str]:
    """The command of an sshd: the system's, or Debian's, fetched once into the cache and not installed."""
    for tool in ("ssh", "ssh-keygen"):
        if shutil.which(tool) is None:
            pytest.skip(f"NOT TRIED over a real sshd: {tool} is not installed (apt install openssh-client)")
    system = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if system:
        return [system]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgeclf-tests" / "sshd"
    if not cache.is_dir():
        cache.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache.parent) as name:
            fetch_debian(Path(name))
            try:
                (Path(name) / "root").rename(cache)
            except OSError:  # another process of the tests was first
                assert cache.is_dir()
    libraries = ":".join(str(folder) for folder in cache.glob("usr/lib/*-linux-gnu*"))
    return ["env", f"LD_LIBRARY_PATH={libraries}", str(cache / "usr/sbin/sshd")]


def fetch_debian(work: Path) -> None:
    """Unpack ``PACKAGES`` into ``work``/root; apt checks what it fetches against the archive's signature."""
    fetch = ["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", *PACKAGES]
    try:
        done = subprocess.run(fetch, cwd=work, capture_output=True, text=True, check=False, timeout=120)
    except (OSError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"NOT TRIED over a real sshd: there is none, and apt-get can't fetch it ({error})")
    if done.returncode != 0:
        pytest.skip(f"NOT TRIED over a real sshd: there is none, and it can't be fetched: {done.stderr.strip()}")
    for file in sorted(work.glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", file, work / "root"], check=True)


@pytest.fixture(scope="session")
def server(sshd: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("ssh")
    for key in ("host", "user", "stranger"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True)
    shutil.copy(folder / "user.pub", folder / "authorized_keys")
    cache = folder / "cache it's $HOME"
    cache.mkdir()
    port = free_port()
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\nUsePAM no\nStrictModes no\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        f'PermitRootLogin prohibit-password\nMaxStartups 50\nSetEnv "XDG_CACHE_HOME={cache}"\n'
    )
    command = [*sshd, "-D", "-e", "-f", str(folder / "sshd_config")]
    if os.geteuid() == 0:
        (folder / "passwd").write_text(
            Path("/etc/passwd").read_text() + "sshd:x:74:65534::/run/sshd:/usr/sbin/nologin\n"
        )
        command = ["unshare", "--mount", "sh", "-c", AS_ROOT, "sh", str(folder / "passwd"), *command]
    with (folder / "sshd.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        wait_for(port, process, folder / "sshd.log")
        yield Server(folder=folder, config=write_config(folder, port), cache=cache, process=process)
    finally:
        process.terminate()
        process.wait(timeout=10)


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(100):
        with socket.socket() as opened:
            if opened.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None:
            pytest.skip(f"NOT TRIED over a real sshd: it does not start here: {log.read_text().strip()}")
        time.sleep(0.1)
    pytest.fail(f"sshd does not answer on port {port}: {log.read_text()}")


def write_config(folder: Path, port: int) -> Path:
    """board and other are this machine; stranger has a key that is not let in; unknown, no key in known_hosts."""
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    (folder / "changed_hosts").write_text(f"[127.0.0.1]:{port} {(folder / 'user.pub').read_text()}")
    (folder / "empty").touch()
    blocks = [
        f"Host {name}\n  HostName 127.0.0.1\n  Port {port}\n  User {getpass.getuser()}\n  IdentitiesOnly yes\n"
        f"  IdentityFile {folder}/{key}\n  UserKnownHostsFile {folder}/{known}\n  GlobalKnownHostsFile none\n"
        for name, key, known in (
            ("board", "user", "known_hosts"),
            ("other", "user", "known_hosts"),
            ("stranger", "stranger", "known_hosts"),
            ("unknown", "user", "empty"),
            ("changed", "user", "changed_hosts"),
        )
    ]
    blocks.append(f"Host off\n  HostName 127.0.0.1\n  Port {free_port()}\n")
    (folder / "ssh_config").write_text("\n".join(blocks))
    return folder / "ssh_config"


@pytest.fixture
def artifacts(tmp_path: Path) -> list[Path]:
    """A real artifact of each container whose engine is installed, with names that no shell leaves alone."""
    folder = tmp_path / ODD
    folder.mkdir()
    made = []
    for container, engine in (("tflite", "litert"), ("onnx", "onnxruntime")):
        if installed(engine):
            made.append(folder / f"-{ODD}.{container}")
            shutil.copy(RELEASED / f"format-1.2.{container}", made[-1])
    return made or pytest.skip("no engine is installed")


@pytest.fixture
def python(tmp_path: Path) -> str:
    """A Python of the board: this one, under a name with blanks and quotes, and with nothing of edgeclf in it."""
    link = tmp_path / "it's $(the) python"
    link.write_text(f'#!/bin/sh\nunset PYTHONPATH\nexec {shlex.quote(sys.executable)} "$@"\n')
    link.chmod(0o755)
    return str(link)

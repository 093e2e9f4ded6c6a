"""Debian systems unpacked into folders, by apt with a state of its own: no root, nothing of this machine's changed."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

MIRROR = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
NOT_UNPACKED = ("./usr/share/doc/*", "./usr/share/man/*", "./usr/share/locale/*", "./usr/bin/qemu-[b-z]*")
UNREACHABLE = (
    "Could not resolve", "Temporary failure resolving", "Could not connect", "Unable to connect", "Connection refused",
    "Connection failed", "Connection timed out", "Network is unreachable", "403  ", "407  ", "502  ", "503  ", "504  ",
)  # fmt: skip
"""What apt says where the archive is not to be had. Everything else, a wrong signature above all, is an error."""


class CommandError(Exception):
    """It can't be done, and should be possible."""


class UnreachableError(Exception):
    """apt can't reach its archive."""


@dataclass(frozen=True, kw_only=True)
class System:
    """What to unpack: packages of one release and everything that they depend on."""

    suite: str
    architecture: str
    packages: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.suite}-{self.architecture}"


def run(command: Sequence[str | Path], **environment: str) -> str:
    """What a command prints.

    Raises:
        CommandError: it is missing or fails.
    """
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C", **environment}
        )
    except OSError as error:
        raise CommandError(f"{command[0]} is needed, but {error.strerror}.") from error
    if done.returncode != 0:
        raise CommandError(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}".strip())
    return done.stdout


def unpacked(system: System, cache: Path, tell: Callable[[str], None]) -> Path:
    """The folder of ``system``, unpacked again only where the archive has other versions of its packages.

    Where the archive can't be reached, what was unpacked before is taken, and ``tell`` is told.

    Raises:
        UnreachableError: something has to be fetched and apt can't reach its archive.
        CommandError: anything else.
    """
    if not KEYRING.is_file():
        raise CommandError(f"{KEYRING} is missing: apt install debian-archive-keyring")
    state = cache / f"apt-{system}-{_digest(MIRROR)}"
    for folder in ("lists/partial", "cache"):
        (state / folder).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="fetching-") as name:
        fetched = Path(name)
        (fetched / "archives" / "partial").mkdir(parents=True)
        config = _write_config(system, state, fetched / "archives")
        unreached = _reached("update", "-o", "APT::Update::Error-Mode=any", config=config)
        if unreached and not list((state / "lists").glob("*Packages*")):
            raise UnreachableError(unreached)
        wanted = run(["apt-get", "-qq", "--print-uris", "install", *system.packages], APT_CONFIG=str(config))
        # An entry is 'ADDRESS' FILE BYTES SHA256:DIGEST, and apt has checked the signature of the list it is from.
        versions = "\n".join(sorted(line.split(" ", 1)[1] for line in wanted.splitlines()))
        root = cache / f"{system}-{_digest(versions + repr(NOT_UNPACKED))}"
        if root.is_dir():
            if unreached:
                tell(f"{system} is taken as it was unpacked before, for apt can't reach its archive: {unreached}")
            return root
        unreached = _reached("--yes", "--download-only", "install", *system.packages, config=config)
        if unreached:
            raise UnreachableError(unreached)
        made = fetched / "root"
        _unpack(sorted((fetched / "archives").glob("*.deb")), made)
        (made / "VERSIONS").write_text(versions + "\n", encoding="utf-8")
        for old in cache.glob(f"{system}-*"):
            shutil.rmtree(old)
        return made.rename(root)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _write_config(system: System, state: Path, archives: Path) -> Path:
    """A configuration for apt: its own folders, and of this machine's only how it is to reach the network."""
    (state / "status").touch()
    (state / "sources.list").write_text(f"deb [signed-by={KEYRING}] {MIRROR} {system.suite} main\n", encoding="utf-8")
    ours = {
        "Dir::Etc::main": "/dev/null",
        "Dir::Etc::parts": "/dev/null",
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::sourcelist": state / "sources.list",
        "Dir::State": state,
        "Dir::State::status": state / "status",
        "Dir::Cache": state / "cache",
        "Dir::Cache::archives": archives,
        "Dir::Log": state,
        "APT::Architecture": system.architecture,
        "APT::Architectures": system.architecture,
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
        "Acquire::Retries": "2",
        "Acquire::http::Timeout": "30",
    }
    network = ("Acquire::http::", "Acquire::https::", "Acquire::Check-")
    lines = [line for line in run(["apt-config", "dump"]).splitlines() if line.startswith(network)]
    lines += [f'{key} "{value}";' for key, value in ours.items()]
    config = state / "apt.conf"
    config.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return config


def _reached(*arguments: str, config: Path) -> str:
    """Run apt-get; empty, or the line with which it says that it can't reach the archive.

    Raises:
        CommandError: it fails of something else.
    """
    try:
        run(["apt-get", "-qq", *arguments], APT_CONFIG=str(config))
    except CommandError as error:
        errors = [line for line in str(error).splitlines() if line.startswith(("E:", "W:"))]
        said = [line for line in errors if any(words in line for words in UNREACHABLE)]
        causes = [line for line in errors if "Failed to fetch" in line]
        if said and all(line in said for line in causes):
            return said[0].removeprefix("E: ").removeprefix("W: ")
        raise
    return ""


def _unpack(packages: Sequence[Path], root: Path) -> None:
    """Unpack without the packages' own scripts, into the folders of a merged /usr."""
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    for name in ("dev", "proc", "sys", "tmp"):
        (root / name).mkdir()
    tar = ["tar", "--extract", "--keep-directory-symlink", "--no-same-owner", "--directory", root]
    for package in packages:
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as reader:
            done = subprocess.run(
                [*tar, *(f"--exclude={name}" for name in NOT_UNPACKED)], stdin=reader.stdout, check=False
            )
        if reader.returncode != 0 or done.returncode != 0:
            raise CommandError(f"{package.name} can't be unpacked into {root}.")

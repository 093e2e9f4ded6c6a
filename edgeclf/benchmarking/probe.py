"""What is on a board: its Python, NumPy and engines."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgeclf.benchmarking.ssh import Completed, Host
from edgeclf_device.engines import PACKAGES, install_command
from edgeclf_device.errors import DependencyError, SystemStateError

OLDEST_PYTHON = (3, 10)

# Understood by any Python, 2.7 included, so that one too old is told so. JSON in ASCII, on the last line.
_PROBE = """
import json, platform, sys
def spec(name):
    try:
        import importlib.util
        return importlib.util.find_spec(name) is not None
    except Exception:
        return False
def version(name):
    try:
        import importlib.metadata
        return importlib.metadata.version(name)
    except Exception:
        return None
try:
    import numpy
    found = numpy.__version__
except Exception as error:
    found = None
wanted = json.loads(sys.argv[1])
print(json.dumps({"python": list(sys.version_info[:3]), "executable": sys.executable, "machine": platform.machine(),
    "numpy": found, "packages": [name for name in wanted if spec(name)], "edgeclf_device": version("edgeclf-device")}))
"""


@dataclass(frozen=True, kw_only=True)
class Board:
    """What was found on a board.

    Attributes:
        python: its version; ``executable`` is where it lies.
        machine: architecture, as the system names it.
        numpy: version.
        engines: names of those whose package is there to import.
        edgeclf_device: version that is installed there; None where none is. It is not what measures.
    """

    python: tuple[int, ...]
    executable: str
    machine: str
    numpy: str
    engines: tuple[str, ...]
    edgeclf_device: str | None

    def __str__(self) -> str:
        own = f"edgeclf-device {self.edgeclf_device}" if self.edgeclf_device else "no edgeclf-device"
        engines = ", ".join(self.engines) or "no engine"
        return f"{self.machine}, Python {_dotted(self.python)}, NumPy {self.numpy}, {engines}, {own} installed"


def probe(host: Host, host_python: str = "python3") -> Board:
    """What is on the board. ``host_python`` is looked for by its shell; ~/ is the home there.

    Raises:
        DependencyError: it is out of reach or refuses; Python is missing or too old; NumPy is missing.
    """
    packages = shlex.quote(json.dumps(list(PACKAGES.values())))
    done = host.shell(f"{_quoted(host_python)} - {packages}", stdin=_PROBE.encode())
    if done.code in (126, 127):
        raise DependencyError(
            f"{host.name} must have Python {_dotted(OLDEST_PYTHON)} or newer, but {host_python} can't be run there; "
            f"install it, or name another with --host-python. {host.name} said: {done.stderr}"
        )
    found = answer(host, done)
    if tuple(found["python"]) < OLDEST_PYTHON:
        raise DependencyError(
            f"{host.name} must have Python {_dotted(OLDEST_PYTHON)} or newer, but {host_python} there is "
            f"{_dotted(found['python'])}; name a newer one with --host-python."
        )
    if found["numpy"] is None:
        raise DependencyError(
            f"{host.name} must have NumPy in {found['executable']}, but it is not there or does not load; run there: "
            f"{found['executable']} -m pip install numpy, or name another Python with --host-python."
        )
    return Board(
        python=tuple(found["python"]),
        executable=found["executable"],
        machine=found["machine"],
        numpy=found["numpy"],
        engines=tuple(name for name, package in PACKAGES.items() if package in found["packages"]),
        edgeclf_device=found["edgeclf_device"],
    )


def answer(host: Host, done: Completed) -> dict[str, Any]:
    """The JSON object on the last line of what a program of ours printed; the login may have printed lines before it.

    Raises:
        SystemStateError: there is none, for the program failed, or it says itself what went wrong.
    """
    lines = done.stdout.decode(errors="replace").strip().splitlines()
    try:
        given = json.loads(lines[-1]) if done.code == 0 and lines else None
    except json.JSONDecodeError:
        given = None
    if not isinstance(given, dict):
        said = done.stderr or "\n".join(lines[-3:]) or "nothing"
        raise SystemStateError(
            f"{host.name} must run a short program with Python, but it ended with {done.code}; try it there by hand. "
            f"{host.name} said: {said}"
        )
    if "error" in given:
        raise SystemStateError(
            f"{host.name} could not do its part: {given['error']}; free space there, or set XDG_CACHE_HOME."
        )
    return given


def no_engine(host: Host, board: Board, engine: str) -> DependencyError:
    """The error that ``engine`` is missing on ``board``."""
    packages = {"edgeclf-device[litert]": "ai-edge-litert", "edgeclf-device[onnxruntime]": "onnxruntime"}
    command = install_command(engine)
    for extra, package in packages.items():  # the runtime is sent along, so the engine alone is missing
        command = command.replace(f'"{extra}"', package)
    return DependencyError(
        f"{host.name} must have the engine {engine} in {board.executable}, but what is there is "
        f"{', '.join(board.engines) or 'none'}; run there: {board.executable} -m {command}, or name another Python "
        "with --host-python."
    )


def _quoted(python: str) -> str:
    """``python`` for a shell, quoted but for a home at its beginning."""
    return f'"$HOME"/{shlex.quote(python[2:])}' if python.startswith("~/") else shlex.quote(python)


def _dotted(version: Sequence[int]) -> str:
    return ".".join(map(str, version))

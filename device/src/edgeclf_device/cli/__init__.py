"""The ``edgeclf-device`` command: parse, one library call, print."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

from edgeclf_device.errors import EdgeclfError, SystemStateError
from edgeclf_device.interrupts import kept_interrupts
from edgeclf_device.terminal import discard_stdout

INTERRUPTED, BROKEN_PIPE = 130, 141
"""What a shell reports of a process ended by SIGINT and by SIGPIPE."""


def main(arguments: Sequence[str] | None = None, *, program: str = "edgeclf-device") -> int:
    """Run the command line and give its exit code: 0 ok, 2 usage, 3 data, 4 model, 5 missing or system, 6 gate.

    ``program`` is the name in help and messages; ``edgeclf`` hands its same commands over under its own.
    """
    try:
        from edgeclf_device.cli.parser import parser  # here, for an interrupt may come while modules are loaded

        options = parser(program).parse_args(arguments)
        _prepare_streams()
        with kept_interrupts():
            code: int = options.run(options)
            sys.stdout.flush()
    except EdgeclfError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:
        discard_stdout()
        if isinstance(error, BrokenPipeError):  # the reader went away (`| head`)
            return BROKEN_PIPE
        print(f"{program}: the output could not be written: {error.strerror}; free space.", file=sys.stderr)
        return SystemStateError.exit_code
    return code


def _prepare_streams() -> None:
    """Make every name printable: one that is not valid text, or not in the terminal's alphabet, is shown escaped."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # A damaged video is reported in one sentence, not by the decoder's own lines as well.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")

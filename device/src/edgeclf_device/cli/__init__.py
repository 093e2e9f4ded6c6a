"""The ``edgeclf-device`` command: parse, one library call, print. argparse alone, so that it starts at once."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any

from edgeclf_device import __version__, text
from edgeclf_device.artifact import read_artifact
from edgeclf_device.bench import bench, load_frames
from edgeclf_device.bundle import read_bundle, resolve
from edgeclf_device.classifier import Classifier, Result
from edgeclf_device.doctor import examine, healthy
from edgeclf_device.engines import MODULES
from edgeclf_device.errors import DataError, DependencyError, EdgeclfError, ModelError, SystemStateError
from edgeclf_device.interrupts import kept_interrupts
from edgeclf_device.sources import Frame, open_source
from edgeclf_device.terminal import discard_stdout, stderr_progress
from edgeclf_device.verify import verify

INTERRUPTED, BROKEN_PIPE = 130, 141
"""What a shell reports of a process ended by SIGINT and by SIGPIPE."""


def main(arguments: Sequence[str] | None = None, *, program: str = "edgeclf-device") -> int:
    """Run the command line and give its exit code: 0 ok, 2 usage, 3 data, 4 model, 5 missing or system, 6 gate.

    ``program`` is the name in help and messages; ``edgeclf`` hands its same commands over under its own.
    """
    options = _parser(program).parse_args(arguments)
    _prepare_streams()
    try:
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


def _inspect(options: argparse.Namespace) -> int:
    artifacts = [(path, read_artifact(path)) for path in resolve(options.path)]
    if options.json:
        shown: Any = [{"file": path.name, "manifest": artifact.raw} for path, artifact in artifacts]
        index = read_bundle(options.path).to_json() if options.path.is_dir() else None
        _print_json({"format": [1, 0], "bundle": index, "artifacts": shown})
        return 0
    for path, artifact in artifacts:
        _print_lines(text.artifact_lines(path.name, artifact))
    return 0


def _verify(options: argparse.Namespace) -> int:
    verification = verify(options.path, engine=options.engine, progress=stderr_progress())
    if options.json:
        _print_json(verification.to_json())
    else:
        _print_lines(text.verification_lines(verification))
    return 0 if verification.ok else ModelError.exit_code


def _classify(options: argparse.Namespace) -> int:
    with (
        open_source(options.source) as source,
        Classifier.open(options.path, engine=options.engine, threads=options.threads) as classify,
        _json_lines(options.json_lines) as events,
    ):
        show_text = events is not sys.stdout
        done = 0
        for frame in islice(source, options.max_frames):
            result = classify(frame.image, color=frame.color)
            total_ms = frame.capture_ms + sum(result.timing_ms.values())
            if events is not None:
                events.write(json.dumps(_event(frame, result, total_ms, options.top), ensure_ascii=False) + "\n")
                events.flush()
            if show_text:
                print(text.result_line(frame.name, result, total_ms, options.top), flush=True)
            done += 1
        for rejected in source.rejected:
            print(f"not read: {rejected.reason}", file=sys.stderr)
        if not done:
            raise DataError(f"Not one frame of {options.source} could be read; see the lines above.")
    return 0


def _bench(options: argparse.Namespace) -> int:
    frames, description = (None, "") if options.source is None else load_frames(options.source)
    measurement = bench(
        options.path,
        engine=options.engine,
        threads=options.threads,
        frames=frames,
        description=description,
        seconds=options.seconds,
        iterations=options.iterations,
        warmup=options.warmup,
        progress=stderr_progress(),
    )
    if options.json:
        _print_json(measurement.to_json())
    else:
        _print_lines(text.measurement_lines(measurement))
    return 0


def _doctor(options: argparse.Namespace) -> int:
    findings = examine()
    if options.json:
        shown = [finding.to_json() for finding in findings]
        _print_json({"format": [1, 0], "healthy": healthy(findings), "findings": shown})
    else:
        _print_lines(text.finding_lines(findings))
    return 0 if healthy(findings) else DependencyError.exit_code


def _event(frame: Frame, result: Result, total_ms: float, top: int) -> dict[str, Any]:
    """One line of ``--json-lines``."""
    return {
        "index": frame.index,
        "name": frame.name,
        "label": result.label,
        "score": result.score,
        "accepted": result.accepted,
        "top": [{"label": label, "score": score} for label, score in result.top(top)],
        "timing_ms": {"capture": frame.capture_ms, **result.timing_ms, "total": total_ms},
    }


@contextlib.contextmanager
def _json_lines(target: str | None) -> Iterator[IO[str] | None]:
    """The stream that events go to: none, stdout for ``-``, or a file."""
    if target is None:
        yield None
    elif target == "-":
        yield sys.stdout
    else:
        with _opened(target) as file:
            yield file


def _opened(target: str) -> IO[str]:
    try:
        return Path(target).open("w", encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise SystemStateError(f"{target} can't be written: {error.strerror}; choose another place.") from error


def _prepare_streams() -> None:
    """Make every name printable: one that is not valid text, or not in the terminal's alphabet, is shown escaped."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # A damaged video is reported in one sentence, not by the decoder's own lines as well.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")


def _print_json(value: Any) -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")
    print(json.dumps(value, ensure_ascii=False, indent=2))


def _print_lines(lines: Iterator[str]) -> None:
    for line in lines:
        print(line)


def _parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program,
        description="Run, measure and check edgeclf artifacts on this device.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{program} {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    engine = argparse.ArgumentParser(add_help=False)
    engine.add_argument("--engine", metavar="E", help=f"{', '.join(MODULES)}; the preferred installed one if not given")
    threads = argparse.ArgumentParser(add_help=False)
    threads.add_argument("--threads", type=int, metavar="N", help="threads to compute with (default: up to four)")
    as_json = argparse.ArgumentParser(add_help=False)
    as_json.add_argument("--json", action="store_true", help="print JSON of a stable, documented form")

    def command(name: str, run: Any, help_text: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=help_text, description=help_text, parents=parents, allow_abbrev=False)
        made.set_defaults(run=run)
        if name != "doctor":
            made.add_argument("path", type=Path, metavar="PATH", help="an artifact (.tflite, .onnx) or a bundle folder")
        return made

    command("inspect", _inspect, "Print what an artifact says of itself; needs no engine.", as_json)
    command("verify", _verify, "Check every digest and run the golden input.", engine, as_json)
    classify = command("classify", _classify, "Classify the frames of a source.", engine, threads)
    classify.add_argument("--source", required=True, metavar="S", help="a folder of images, an image, .npy or video")
    classify.add_argument("--max-frames", type=_positive, metavar="N", help="stop after N frames")
    classify.add_argument("--top", type=_positive, default=1, metavar="K", help="labels to show (default: 1)")
    classify.add_argument("--json-lines", metavar="F", help="write one JSON object per frame to F; - is stdout")
    measure = command("bench", _bench, "Measure each stage: p50, p90 and p99.", engine, threads, as_json)
    measure.add_argument("--source", metavar="S", help="frames to measure with (default: a synthetic 1280×720 frame)")
    measure.add_argument("--seconds", type=float, default=3.0, metavar="T", help="how long to measure (default: 3)")
    measure.add_argument("--iterations", type=_positive, metavar="N", help="samples to take, instead of --seconds")
    measure.add_argument("--warmup", type=int, default=20, metavar="N", help="frames before the first (default: 20)")
    command("doctor", _doctor, "Examine this machine and say what to do.", as_json)
    return parser


def _positive(value: str) -> int:
    number = int(value)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, but it is {number}")
    return number

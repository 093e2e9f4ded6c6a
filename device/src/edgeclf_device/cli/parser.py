"""The arguments of every command. argparse alone, so that it starts at once."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edgeclf_device import __version__
from edgeclf_device.cli import classify, commands
from edgeclf_device.engines import MODULES
from edgeclf_device.sources import KINDS
from edgeclf_device.uncertainty import MEASURES


def parser(program: str) -> argparse.ArgumentParser:
    """The parser; a parsed command is run by its ``run``."""
    made = argparse.ArgumentParser(
        prog=program,
        description="Run, measure and check edgeclf artifacts on this device.",
        allow_abbrev=False,
    )
    made.add_argument("--version", action="version", version=f"{program} {__version__}")
    subparsers = made.add_subparsers(required=True, metavar="COMMAND")
    engine = argparse.ArgumentParser(add_help=False)
    engine.add_argument("--engine", metavar="E", help=f"{', '.join(MODULES)}; the preferred installed one if not given")
    threads = argparse.ArgumentParser(add_help=False)
    threads.add_argument("--threads", type=int, metavar="N", help="threads to compute with (default: up to four)")
    as_json = argparse.ArgumentParser(add_help=False)
    as_json.add_argument("--json", action="store_true", help="print JSON of a stable, documented form")

    def command(name: str, run: Any, help_text: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        added = subparsers.add_parser(name, help=help_text, description=help_text, parents=parents, allow_abbrev=False)
        added.set_defaults(run=run)
        if name != "doctor":
            added.add_argument(
                "path", type=Path, metavar="PATH", help="an artifact (.tflite, .onnx) or a bundle folder"
            )
        return added

    command("inspect", commands.inspect, "Print what an artifact says of itself; needs no engine.", as_json)
    command("verify", commands.verify, "Check every digest and run the golden input.", engine, as_json)
    _add_classify(command("classify", classify.classify, "Classify the frames of a source.", engine, threads))
    _add_bench(
        command("bench", commands.bench, "Measure each stage, or two artifacts in turn.", engine, threads, as_json)
    )
    tune = command("tune", commands.tune, "Find the fastest engine and threads here, and keep them.", as_json)
    tune.add_argument("--source", metavar="S", help="frames to measure with (default: a synthetic 1280×720 frame)")
    tune.add_argument("--seconds", type=float, default=3.0, metavar="T", help="for each candidate (default: 3)")
    tune.add_argument("--forget", action="store_true", help="forget what was kept, and measure nothing")
    command("doctor", commands.doctor, "Examine this machine and say what to do.", as_json)
    return made


def _add_classify(added: argparse.ArgumentParser) -> None:
    kinds = ", ".join(f"{kind}:" for kind in KINDS)
    added.add_argument(
        "--source", required=True, metavar="S", help=f"a folder of images, an image, a .npy, a video, or one of {kinds}"
    )
    added.add_argument("--max-frames", type=_positive, metavar="N", help="stop after N frames")
    added.add_argument("--top", type=_positive, default=1, metavar="K", help="labels to show (default: 1)")
    added.add_argument("--allow", action="append", metavar="LABEL", help="let only this label win; may be repeated")
    added.add_argument(
        "--decide", metavar="RULE", help="steady decisions: average:N or vote:N, hysteresis:ENTER:LEAVE, joined by +"
    )
    added.add_argument("--json-lines", metavar="F", help="write one JSON object per frame to F; - is stdout")
    added.add_argument("--on-change", metavar="PROGRAM", help="run it at each change of the decision; no shell")
    added.add_argument("--mqtt", metavar="URL", help="publish each change: mqtt://HOST/TOPIC")
    added.add_argument("--serve", metavar="HOST:PORT", help="show the live page there, for example 127.0.0.1:8080")
    added.add_argument("--allow-remote", action="store_true", help="let other machines see the page; needs a token")
    added.add_argument(
        "--token-file", type=Path, metavar="F", help="holds the page's token (default: $EDGECLF_TOKEN; auto makes one)"
    )
    _add_keeping(added)
    _add_hardware(added)


def _add_keeping(added: argparse.ArgumentParser) -> None:
    added.add_argument(
        "--keep-hard", type=Path, metavar="DIR", help="keep the frames it is least sure of there; off by default"
    )
    added.add_argument("--keep-frames", type=_positive, default=200, metavar="N", help="so many at most (default: 200)")
    added.add_argument("--keep-mib", type=_positive, default=256, metavar="MIB", help="so much at most (default: 256)")
    added.add_argument(
        "--keep-unsure", type=float, default=0.1, metavar="U", help="least uncertainty, 0 to 1 (default: 0.1)"
    )
    added.add_argument("--keep-measure", choices=MEASURES, default="margin", help="of uncertainty (default: margin)")


def _add_bench(added: argparse.ArgumentParser) -> None:
    added.add_argument(
        "against", nargs="?", type=Path, metavar="OTHER", help="measured in turn with PATH: which is faster?"
    )
    added.add_argument("--source", metavar="S", help="frames to measure with (default: a synthetic 1280×720 frame)")
    added.add_argument(
        "--seconds", type=float, default=10.0, metavar="T", help="at most; less where the median is known (default: 10)"
    )
    added.add_argument("--iterations", type=_positive, metavar="N", help="samples to take, instead of --seconds")
    added.add_argument("--warmup", type=int, metavar="N", help="frames before the first (default: until steady)")
    added.add_argument("--no-cold-start", action="store_true", help="start no new processes")
    scenario = added.add_mutually_exclusive_group()
    scenario.add_argument("--offline", action="store_true", help="give all frames at once: throughput")
    scenario.add_argument("--rate", type=float, metavar="FPS", help="let so many frames a second come, late or not")
    added.add_argument("--compare", type=Path, metavar="F", help="compare with a file of bench --json")
    added.add_argument("--explain", action="store_true", help="say why it takes this time, measuring nothing else")
    added.add_argument("--max-p90-ms", type=float, metavar="MS", help="exit 6 where p90 is higher")
    added.add_argument("--max-regression", type=float, metavar="PCT", help="exit 6 where surely slower by more")
    _add_hardware(added)


def _add_hardware(added: argparse.ArgumentParser) -> None:
    added.add_argument("--delegate", metavar="LIB", help="a library that runs .tflite on other hardware")
    added.add_argument("--provider", metavar="P", help="what ONNX Runtime computes with: cpu, cuda, tensorrt, …")


def _positive(value: str) -> int:
    number = int(value)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, but it is {number}")
    return number

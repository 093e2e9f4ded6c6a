"""Every command but ``classify``: one library call, then print."""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Iterable
from typing import Any

from edgeclf_device import text
from edgeclf_device.artifact import read_artifact
from edgeclf_device.bench import (
    COLD_STARTS,
    Plan,
    Scenario,
    compare,
    compare_with,
    comparison_lines,
    gate,
    load_frames,
    measurement_lines,
    measurements_json,
    read_measurements,
)
from edgeclf_device.bench import bench as measure
from edgeclf_device.bundle import read_bundle, resolve
from edgeclf_device.cli.parsed import options_given
from edgeclf_device.doctor import examine, healthy
from edgeclf_device.errors import DependencyError, ModelError
from edgeclf_device.terminal import stderr_progress
from edgeclf_device.verify import verify as verify_path


def inspect(options: argparse.Namespace) -> int:
    """``inspect``: print what artifacts say of themselves."""
    artifacts = [(path, read_artifact(path)) for path in resolve(options.path)]
    if options.json:
        shown: Any = [{"file": path.name, "manifest": artifact.raw} for path, artifact in artifacts]
        index = read_bundle(options.path).to_json() if options.path.is_dir() else None
        _print_json({"format": [1, 0], "bundle": index, "artifacts": shown})
        return 0
    for path, artifact in artifacts:
        _print_lines(text.artifact_lines(path.name, artifact))
    return 0


def verify(options: argparse.Namespace) -> int:
    """``verify``: check digests and the golden input."""
    verification = verify_path(options.path, engine=options.engine, progress=stderr_progress())
    if options.json:
        _print_json(verification.to_json())
    else:
        _print_lines(text.verification_lines(verification))
    return 0 if verification.ok else ModelError.exit_code


def bench(options: argparse.Namespace) -> int:
    """``bench``: measure each stage, or two artifacts in turn; keep limits; or explain the time."""
    if options.explain:
        return _explain(options)
    frames, description = (None, "") if options.source is None else load_frames(options.source)
    how: dict[str, Any] = {
        "engine": options.engine,
        "threads": options.threads,
        "options": options_given(options),
        "frames": frames,
        "description": description,
        "progress": stderr_progress(),
    }
    if options.against is not None:
        compared = compare(options.path, options.against, seconds=options.seconds * 2, **how)
        measurements, comparisons = [compared.base, compared.other], [compared]
    else:
        plan = Plan(
            seconds=options.seconds,
            iterations=options.iterations,
            warmup=options.warmup,
            cold_starts=0 if options.no_cold_start else COLD_STARTS,
        )
        rate = options.rate
        scenario: Scenario = "offline" if options.offline else "single-stream" if rate is None else "fixed-rate"
        measurements = [measure(options.path, scenario=scenario, rate_fps=rate, plan=plan, **how)]
        earlier = [] if options.compare is None else read_measurements(options.compare)
        comparisons = [compare_with(earlier, taken) for taken in measurements if options.compare is not None]
    if options.json:
        _print_json(measurements_json(measurements, comparisons))
    else:
        for taken in measurements:
            _print_lines(measurement_lines(taken))
        for made in comparisons:
            _print_lines(comparison_lines(made))
    gate(measurements, comparisons, max_p90_ms=options.max_p90_ms, max_regression_percent=options.max_regression)
    return 0


def _explain(options: argparse.Namespace) -> int:
    from edgeclf_device.explain import explain, explanation_lines

    found = explain(
        options.path,
        engine=options.engine,
        threads=options.threads,
        options=options_given(options),
        against=options.against,
    )
    if options.json:
        _print_json(found.to_json())
    else:
        _print_lines(explanation_lines(found))
    return 0


def doctor(options: argparse.Namespace) -> int:
    """``doctor``: examine this machine."""
    findings = examine()
    if options.json:
        shown = [finding.to_json() for finding in findings]
        _print_json({"format": [1, 0], "healthy": healthy(findings), "findings": shown})
    else:
        _print_lines(text.finding_lines(findings))
    return 0 if healthy(findings) else DependencyError.exit_code


def tune(options: argparse.Namespace) -> int:
    """``tune``: find the fastest engine and number of threads on this board, and keep them; or forget them."""
    from edgeclf_device.tune import forget
    from edgeclf_device.tune import tune as tune_path
    from edgeclf_device.tuning import tuning_lines

    if options.forget:
        forgotten = forget(options.path)
        print(f"forgotten: {', '.join(forgotten)}" if forgotten else "nothing was kept of it on this board")
        return 0
    frames, description = (None, "") if options.source is None else load_frames(options.source)
    tuning = tune_path(
        options.path,
        seconds_per_candidate=options.seconds,
        frames=frames,
        description=description,
        progress=stderr_progress(),
    )
    if options.json:
        _print_json(tuning.to_json())
    else:
        _print_lines(tuning_lines(tuning))
    return 0


def _print_json(value: Any) -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")
    print(json.dumps(value, ensure_ascii=False, indent=2))


def _print_lines(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)

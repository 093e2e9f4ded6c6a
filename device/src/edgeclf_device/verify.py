"""Verify artifacts and bundles: every digest, the trailer, and the golden input run on a real engine."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgeclf_device.artifact import Artifact, read_artifact
from edgeclf_device.bundle import Bundle, Entry, file_sha256, is_bundle, read_bundle, resolve
from edgeclf_device.choice import choose
from edgeclf_device.classifier import as_batch, check_engine, scores_of
from edgeclf_device.engines import ENGINES_OF, installed, open_engine
from edgeclf_device.errors import ModelError
from edgeclf_device.golden import golden_input
from edgeclf_device.progress import Progress, no_progress

Outcome = Literal["ok", "failed", "skipped"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was checked: of which file, its outcome, and what was seen."""

    file: str
    name: str
    outcome: Outcome
    detail: str

    def to_json(self) -> dict[str, str]:
        """The check as ``verify --json`` prints it."""
        return dict(vars(self))


@dataclass(frozen=True, kw_only=True)
class Verification:
    """Everything that was checked of an artifact or a bundle."""

    path: Path
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return all(check.outcome != "failed" for check in self.checks)

    def raise_if_failed(self) -> None:
        """Raise ModelError with every failed check; do nothing where there is none."""
        failed = [f"{check.file}: {check.name}: {check.detail}" for check in self.checks if check.outcome == "failed"]
        if failed:
            raise ModelError("\n".join(failed))

    def to_json(self) -> dict[str, Any]:
        """The result as ``verify --json`` prints it."""
        return {
            "format": [1, 0],
            "path": str(self.path),
            "ok": self.ok,
            "checks": [check.to_json() for check in self.checks],
        }


def verify(path: Path, *, engine: str | None = None, progress: Progress = no_progress) -> Verification:
    """Check an artifact, or every artifact of a bundle and its index.

    In a bundle, an artifact whose engine is not installed (or is not ``engine``) has its digests checked; running it
    is skipped, and the check says so. At least one artifact must run.

    Args:
        path: an artifact or a bundle folder.
        engine: its name; None takes the preferred one that is installed.
        progress: shows the artifacts as they are checked.

    Raises:
        ModelError: nothing is there, or a folder that is no bundle. Everything else wrong with files is a failed check.
        DependencyError: no engine that executes an artifact is installed.
        UsageError: an unknown engine, one that executes none of the artifacts, or a file that is no artifact.
    """
    path = Path(path)
    if not is_bundle(path):
        (file,) = resolve(path)
        return Verification(path=path, checks=tuple(_check_artifact(file, engine, required=True)))
    try:
        bundle = read_bundle(path)
    except ModelError as error:
        return Verification(path=path, checks=(_failed(path.name, "index", str(error)),))
    checks = [_ok(path.name, "index", f"{len(bundle.artifacts)} artifacts")]
    if all(bundle.path(entry).is_file() for entry in bundle.artifacts):
        choose(path, engine=engine)  # raises where nothing can run at all
    for entry in progress(bundle.artifacts, "Verifying", len(bundle.artifacts)):
        checks += _check_entry(bundle, entry, engine)
    return Verification(path=path, checks=tuple(checks))


def _check_entry(bundle: Bundle, entry: Entry, engine: str | None) -> list[Check]:
    file = bundle.path(entry)
    if not file.is_file():
        return [_failed(entry.file, "present", "the index names it, but the folder does not hold it; copy it again")]
    if file.stat().st_size != entry.size_bytes or file_sha256(file) != entry.sha256:
        indexed = _failed(entry.file, "index", "its SHA-256 is not the index's: it is damaged, or not this bundle's")
    else:
        indexed = _ok(entry.file, "index", f"SHA-256 {entry.sha256[:16]}…")
    checks = _check_artifact(file, engine, required=False)
    return [indexed, *checks]


def _check_artifact(file: Path, engine: str | None, *, required: bool) -> list[Check]:
    try:
        artifact = read_artifact(file)
    except ModelError as error:
        return [_failed(file.name, "digests", str(error).removeprefix(f"{file}: "))]
    checks = [_ok(file.name, "digests", f"model SHA-256 {artifact.digest[:16]}…, manifest and trailer")]
    reason = None if required else _cannot_run(artifact, engine)
    if reason:
        return [*checks, Check(file=file.name, name="golden", outcome="skipped", detail=reason)]
    try:
        return [*checks, *_check_golden(file.name, artifact, engine)]
    except ModelError as error:
        return [*checks, _failed(file.name, "engine", str(error))]


def _cannot_run(artifact: Artifact, engine: str | None) -> str | None:
    usable = ENGINES_OF[artifact.manifest.container]
    if engine is not None and engine not in usable:
        return f"not run: the engine {engine} does not execute .{artifact.manifest.container}"
    if not any(installed(name) for name in usable):
        return f"not run: {usable[0]} is not installed"
    return None


def _check_golden(file: str, artifact: Artifact, engine: str | None) -> list[Check]:
    """Load the model, run the golden input on one thread and compare the scores with the manifest's.

    Raises:
        ModelError: the engine refuses the model, or sees other tensors than the manifest.
    """
    manifest, golden = artifact.manifest, artifact.manifest.golden
    loaded = open_engine(artifact.content, manifest.container, engine=engine, threads=1)
    try:
        check_engine(manifest, loaded)
        checks = [_ok(file, "engine", f"{loaded.name} {loaded.version} loads it")]
        pixels = golden_input(golden.generator, golden.seed, manifest.spec.shape)
        digest = hashlib.sha256(pixels.tobytes()).hexdigest()
        if digest != golden.input_sha256:
            detail = f"its SHA-256 is {digest[:16]}…, but the manifest states {golden.input_sha256[:16]}…"
            return [*checks, _failed(file, "golden input", detail)]
        checks.append(_ok(file, "golden input", f"{golden.generator} of seed {golden.seed}"))
        scores = scores_of(loaded.run(as_batch(pixels, manifest.inputs[0])), manifest.outputs[0])
    finally:
        loaded.close()
    expected = np.asarray(golden.scores, np.float64)
    difference = float(np.abs(scores - expected).max())
    best = int(expected.argmax())
    detail = f"largest difference {difference:.3g}, allowed {golden.tolerance:.3g}"
    # Compared this way round, so that a NaN fails.
    close = difference <= golden.tolerance
    checks.append(_ok(file, "golden scores", detail) if close else _failed(file, "golden scores", detail))
    label, found = manifest.labels[best], manifest.labels[int(scores.argmax())]
    same = bool(scores[best] == scores.max())
    detail = f"{label}" if same else f"{found}, but the manifest states {label}"
    checks.append(_ok(file, "golden label", detail) if same else _failed(file, "golden label", detail))
    return checks


def _ok(file: str, name: str, detail: str) -> Check:
    return Check(file=file, name=name, outcome="ok", detail=detail)


def _failed(file: str, name: str, detail: str) -> Check:
    return Check(file=file, name=name, outcome="failed", detail=detail)

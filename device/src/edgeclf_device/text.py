"""Results as plain lines for people: what ``edgeclf-device`` prints without ``--json``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from edgeclf_device.artifact import Artifact
from edgeclf_device.certificate import Certificate, Paired
from edgeclf_device.clips import ClipSpec
from edgeclf_device.doctor import Finding
from edgeclf_device.manifest import Tensor
from edgeclf_device.streaming import Event
from edgeclf_device.verify import Verification

MAX_LABELS_SHOWN = 10
_MARKS = {"ok": "ok", "failed": "FAILED", "skipped": "skipped", "note": "note", "problem": "PROBLEM"}


def artifact_lines(file: str, artifact: Artifact) -> Iterator[str]:
    """Everything an artifact says of itself."""
    manifest, spec = artifact.manifest, artifact.manifest.preprocessing
    fraction = f" {spec.crop_fraction:g}" if spec.crop == "center" else ""
    bars = f", bars {spec.fill}" if spec.crop == "letterbox" else ""
    yield file
    yield from _table(
        [
            ("name", manifest.name),
            ("scheme", f"{manifest.scheme} in .{manifest.container}, {artifact.raw['model_bytes']:,} bytes of model"),
            ("labels", f"{len(manifest.labels)}: {_shortened(manifest.labels)}"),
            ("preprocessing", f"{spec.height}×{spec.width} {spec.channels}, {spec.crop}{fraction}{bars}"),
            *_clip(manifest.clip),
            *(("input", _tensor(tensor)) for tensor in manifest.inputs),
            *(("output", _tensor(tensor)) for tensor in manifest.outputs),
            ("certificate", _certificate(manifest.certificate)),
            *_compared(manifest.certificate),
            ("reject below", "none" if manifest.reject_below is None else f"score {manifest.reject_below:.4f}"),
            ("calibration", _record(manifest.calibration) if manifest.calibration else "none"),
            ("provenance", _record(manifest.provenance) if manifest.provenance else "none"),
            ("golden", f"{manifest.golden.generator}, seed {manifest.golden.seed}, ±{manifest.golden.tolerance:g}"),
            ("model SHA-256", artifact.digest),
            ("manifest SHA-256", str(artifact.raw["manifest_sha256"])),
        ]
    )


def verification_lines(verification: Verification) -> Iterator[str]:
    """One line for each check, and the verdict."""
    width = max(len(f"{check.file}: {check.name}") for check in verification.checks)
    for check in verification.checks:
        yield f"{_MARKS[check.outcome]:8} {f'{check.file}: {check.name}':{width}}  {check.detail}"
    yield "verified" if verification.ok else "NOT VERIFIED: don't use it; copy or export it again"


def finding_lines(findings: Iterable[Finding]) -> Iterator[str]:
    """One line for each finding, and one for its remedy."""
    for finding in findings:
        yield f"{_MARKS[finding.level]:8} {finding.subject}: {finding.detail}"
        if finding.remedy:
            yield f"{'':8}   → {finding.remedy}"


def event_line(event: Event, top: int) -> str:
    """A frame's name, its labels with their scores, whether the first is too unsure, the time, and a new decision."""
    result, decision = event.result, event.decision
    ranked = "  ".join(f"{label} {score:.3f}" for label, score in result.top(top))
    unsure = "" if result.accepted else "  not accepted"
    changed = f"  → {decision.label or 'no label'}" if decision.changed else ""
    return f"{event.frame.name}  {ranked}{unsure}  {event.total_ms:.2f} ms{changed}"


def drop_interval(paired: Paired | None) -> str:
    """The 95 % interval of a drop in points, or a dash where it was not measured."""
    return "–" if paired is None else "{:+.2f} to {:+.2f}".format(*paired.drop_interval_95)


def _table(rows: list[tuple[str, str]]) -> Iterator[str]:
    width = max(len(name) for name, _ in rows)
    return (f"  {name:{width}}  {value}" for name, value in rows)


def _shortened(labels: tuple[str, ...]) -> str:
    rest = len(labels) - MAX_LABELS_SHOWN
    return ", ".join(labels[:MAX_LABELS_SHOWN]) + (f" and {rest} more (see --json)" if rest > 0 else "")


def _tensor(tensor: Tensor) -> str:
    sides = "×".join(map(str, tensor.shape))
    if tensor.quantization is None:
        return f"{tensor.dtype} {sides} {tensor.layout}"
    scale, zero_point = tensor.quantization.scale, tensor.quantization.zero_point
    return f"{tensor.dtype} {sides} {tensor.layout}, scale {scale:.6g}, zero point {zero_point}"


def _clip(clip: ClipSpec | None) -> Iterator[tuple[str, str]]:
    if clip is not None:
        yield (
            "clip",
            f"{clip.window} frames at {clip.fps:g} a second ({clip.seconds:.2f} s), a decision every {clip.stride}",
        )


def _certificate(certificate: Certificate | None) -> str:
    if certificate is None:
        return "none: its accuracy was not measured"
    if certificate.accuracy is None:
        return (
            f"same label as the original {certificate.agreement:.4f} on {certificate.images} {certificate.split} "
            f"images with {certificate.engine}; without labels no accuracy was measured"
        )
    return (
        f"accuracy {certificate.accuracy:.4f} on {certificate.images} {certificate.split} images with "
        f"{certificate.engine}; {certificate.drop_points:.2f} points below the original "
        f"(allowed {certificate.max_drop_points:g}), same label {certificate.agreement:.4f}"
    )


def _compared(certificate: Certificate | None) -> Iterator[tuple[str, str]]:
    """Rows on the comparison with the Keras model, as far as the certificate has them."""
    if certificate is not None and certificate.paired is not None:
        paired = certificate.paired
        counts = f"{paired.lost} images lost, {paired.gained} gained, McNemar p {paired.mcnemar_p:.2g}"
        yield "drop", f"95 % interval {drop_interval(paired)} points; {counts}"
    if certificate is not None and certificate.changes is not None:
        changes = certificate.changes
        errors = f"at most {changes.max_error:.2g}, by {changes.mean_error:.2g} on average"
        yield (
            "changes",
            f"{changes.images} of {certificate.images} images have another label; scores are off by {errors}",
        )


def _record(record: dict[str, Any]) -> str:
    """A record of any depth on one line: short values as they are, long ones counted."""
    return ", ".join(f"{key} {_short(value)}" for key, value in record.items())


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{{len(value)} fields}}" if len(value) > 4 else f"({_record(value)})"
    if isinstance(value, list):
        return f"[{len(value)} items]"
    text = str(value)
    return text if len(text) <= 40 else f"{text[:16]}…"

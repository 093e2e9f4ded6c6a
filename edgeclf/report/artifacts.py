"""What is told of a bundle's artifacts, and kept in the run, so that its report can be renewed without the bundle."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeclf.training.kept import read_kept
from edgeclf_device.artifact import read_artifact
from edgeclf_device.atomic import write_text
from edgeclf_device.bench import Measurement
from edgeclf_device.bundle import Bundle
from edgeclf_device.certificate import Changes, Paired
from edgeclf_device.errors import ModelError

ARTIFACTS = "artifacts.json"
FORMAT = (1, 0)

_CERTIFIED = ("accuracy", "drop_points", "agreement", "paired", "changes")


@dataclass(frozen=True, kw_only=True)
class ArtifactRow:
    """One artifact in the report and in the quickstart's table: certificate and measured time.

    Without labels ``accuracy``, ``drop_points`` and ``paired`` are None, without images ``agreement`` and ``changes``
    too.
    """

    file: str
    size_bytes: int
    accuracy: float | None
    drop_points: float | None
    agreement: float | None
    p50_ms: float
    p90_ms: float
    p99_ms: float
    paired: Paired | None = None
    changes: Changes | None = None


def artifact_rows(bundle: Bundle, measurements: Sequence[Measurement]) -> list[ArtifactRow]:
    """Join the certificates of a bundle's artifacts with their measurements, in the order of the bundle.

    Raises:
        ModelError: an artifact was not measured.
    """
    measured = {measurement.artifact: measurement.percentiles_ms("total") for measurement in measurements}
    rows = []
    for entry in bundle.artifacts:
        certificate = read_artifact(bundle.path(entry)).manifest.certificate
        if entry.file not in measured:
            raise ModelError(f"{entry.file} was not measured; measure it first.")
        certified: dict[str, Any] = {name: getattr(certificate, name, None) for name in _CERTIFIED}
        times = measured[entry.file]
        rows.append(
            ArtifactRow(
                file=entry.file,
                size_bytes=entry.size_bytes,
                p50_ms=times["p50"],
                p90_ms=times["p90"],
                p99_ms=times["p99"],
                **certified,
            )
        )
    return rows


def conditions(measurements: Sequence[Measurement]) -> str:
    """One sentence on how the times were taken."""
    first = measurements[0]
    return (
        f"Milliseconds per frame (prepare + infer + decide) over {first.input}, {first.threads} thread(s), after "
        f"{first.warmup} frames of warm-up, on {first.environment.cpu} with {first.environment.cores} cores."
    )


def keep_artifacts(folder: Path, rows: Sequence[ArtifactRow], conditions: str) -> None:
    """Write ``rows``, and how their times were taken, into the run ``folder``.

    Raises:
        SystemStateError: the disk is full or can't be written.
    """
    value = {"format": list(FORMAT), "conditions": conditions, "artifacts": [_to_json(row) for row in rows]}
    write_text(folder / ARTIFACTS, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def kept_artifacts(folder: Path) -> tuple[list[ArtifactRow], str]:
    """The rows that the run ``folder`` keeps, maybe none, and how their times were taken.

    Raises:
        ModelError: they are damaged, or of a newer format.
    """

    def rows_and_conditions(value: Any) -> tuple[list[ArtifactRow], str]:
        return [_from_json(one) for one in value["artifacts"]], str(value["conditions"])

    path, remedy = folder / ARTIFACTS, "remove it, or export again"
    return read_kept(path, rows_and_conditions, newest=FORMAT, remedy=remedy) or ([], "")


def _to_json(row: ArtifactRow) -> dict[str, Any]:
    nested = {name: one.to_json() if one else None for name, one in (("paired", row.paired), ("changes", row.changes))}
    return {**vars(row), **nested}


def _from_json(value: dict[str, Any]) -> ArtifactRow:
    paired, changes = value["paired"], value["changes"]
    nested = {
        "paired": None if paired is None else Paired.from_json(paired),
        "changes": None if changes is None else Changes.from_json(changes),
    }
    return ArtifactRow(**{**value, **nested})

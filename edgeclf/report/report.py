"""Write report.html: what went in, how training went, how good the model is, and what each artifact costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeclf.report import plots, sections
from edgeclf.training.config import to_toml
from edgeclf.training.run import Run
from edgeclf_device.artifact import read_artifact
from edgeclf_device.atomic import write_text
from edgeclf_device.bench import Measurement
from edgeclf_device.bundle import Bundle
from edgeclf_device.certificate import Changes, Paired
from edgeclf_device.errors import ModelError
from edgeclf_device.text import drop_interval

REPORT = "report.html"
PARTS = {"test": "test", "val": "validation"}
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


def write_report(run: Run, *, artifacts: Sequence[ArtifactRow] = (), latency_conditions: str = "") -> Path:
    """Write the report of ``run`` as one self-contained file, in the run; gives its path. Needs no Keras.

    Raises:
        DataError: the run has no images: a stock classifier has nothing to report.
        ModelError: the run's files are damaged.
        SystemStateError: the system refused (disk full, permission).
    """
    found = sections.judged(run)
    text = _rendered(
        run,
        name=run.config.name,
        backbone=run.config.backbone,
        seed=run.config.seed,
        configuration=to_toml(run.config),
        parameters=run.metrics["parameters"],
        labels=run.labels,
        part=PARTS[found.part],
        judged=found.metrics,
        data=sections.data_section(run),
        training=sections.training_section(run),
        accuracy=sections.accuracy_section(run, found),
        confidence=sections.confidence_section(run, found),
        gallery=sections.gallery_section(run, found),
        artifacts=artifacts,
        changes=sections.changes_section(run, {row.file: row.changes for row in artifacts if row.changes}),
        artifacts_plot=plots.artifacts(artifacts) if artifacts else "",
        latency_conditions=latency_conditions,
    )
    path = run.folder / REPORT
    write_text(path, text)
    return path


def _rendered(run: Run, **values: Any) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined, UndefinedError

    environment = Environment(
        loader=PackageLoader("edgeclf.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"percent": _percent, "number": _number, "interval": drop_interval}
    try:
        return environment.get_template("report.html.j2").render(**values)
    except UndefinedError as error:
        raise ModelError(f"{run.folder} lacks what its report tells of ({error}); train again.") from error


# float() finds out what is missing: Jinja's undefined value refuses it in its own words.
def _percent(share: float | None, digits: int = 1) -> str:
    return "–" if share is None else f"{100 * float(share):.{digits}f} %"


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{float(value):.{digits}f}"

"""Write report.html: what went in, how training went, how good the model is, and what each artifact costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeclf.report import plots
from edgeclf.training.config import to_toml
from edgeclf.training.run import Run, read_history
from edgeclf_device.artifact import read_artifact
from edgeclf_device.atomic import write_text
from edgeclf_device.bench import Measurement
from edgeclf_device.bundle import Bundle
from edgeclf_device.errors import ModelError

REPORT = "report.html"


@dataclass(frozen=True, kw_only=True)
class ArtifactRow:
    """One artifact in the report and in the quickstart's table: certificate and measured time."""

    file: str
    size_bytes: int
    accuracy: float
    drop_points: float
    agreement: float
    p50_ms: float
    p90_ms: float
    p99_ms: float


def artifact_rows(bundle: Bundle, measurements: Sequence[Measurement]) -> list[ArtifactRow]:
    """Join the certificates of a bundle's artifacts with their measurements, in the order of the bundle.

    Raises:
        ModelError: an artifact has no certificate or was not measured.
    """
    measured = {measurement.artifact: measurement.percentiles_ms("total") for measurement in measurements}
    rows = []
    for entry in bundle.artifacts:
        certificate = read_artifact(bundle.path(entry)).manifest.certificate
        if certificate is None or entry.file not in measured:
            raise ModelError(f"{entry.file} has no certificate or no measurement; export and measure it first.")
        rows.append(
            ArtifactRow(
                file=entry.file,
                size_bytes=entry.size_bytes,
                accuracy=certificate.accuracy,
                drop_points=certificate.drop_points,
                agreement=certificate.agreement,
                **{f"{name}_ms": value for name, value in measured[entry.file].items()},
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
    """Write the report of ``run`` as one self-contained file, in the run; gives its path.

    Raises:
        ModelError: the run's files are damaged.
        SystemStateError: the system refused (disk full, permission).
    """
    from jinja2 import Environment, PackageLoader

    labels, metrics = run.labels, run.metrics
    counted = Counter((row.split, row.label) for row in run.splits)
    counts = {split: [counted[split, label] for label in labels] for split in ("train", "val", "test")}
    part, judged = run.judged
    page = Environment(loader=PackageLoader("edgeclf.report", "."), autoescape=True).get_template("report.html.j2")
    text = page.render(
        name=run.config.name,
        backbone=run.config.backbone,
        seed=run.config.seed,
        configuration=to_toml(run.config),
        licence=run.config.licence,
        labels=labels,
        counts=counts,
        images=sum(map(sum, counts.values())),
        rejected=metrics["rejected"],
        parameters=f"{metrics['parameters']:,}",
        train_seconds=round(sum(metrics["timings_s"].values())),
        part=part,
        judged=judged,
        class_balance=plots.class_balance(labels, counts),
        learning_curves=plots.learning_curves(read_history(run)),
        confusion=plots.confusion(judged["confusion_matrix"], labels),
        artifacts=artifacts,
        artifacts_plot=plots.artifacts(artifacts) if artifacts else "",
        latency_conditions=latency_conditions,
    )
    path = run.folder / REPORT
    write_text(path, text)
    return path

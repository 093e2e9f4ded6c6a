"""Write report.html: what went in, how training went, how good the model is, and what each artifact costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeclf.report import plots, sections
from edgeclf.report.artifacts import ArtifactRow, keep_artifacts, kept_artifacts
from edgeclf.training.config import to_toml
from edgeclf.training.run import Run
from edgeclf_device.atomic import write_text
from edgeclf_device.errors import ModelError
from edgeclf_device.text import drop_interval

REPORT = "report.html"
PARTS = {"test": "test", "val": "validation"}


def write_report(run: Run, *, artifacts: Sequence[ArtifactRow] = (), latency_conditions: str = "") -> Path:
    """Write the report of ``run`` as one self-contained file, in the run; gives its path. Needs no Keras.

    ``artifacts`` and how their times were taken are kept in the run; without any, the report shows those kept last.

    Raises:
        DataError: the run has no images: a stock classifier has nothing to report.
        ModelError: the run's files are damaged.
        SystemStateError: the system refused (disk full, permission).
    """
    found = sections.judged(run)
    if artifacts:
        keep_artifacts(run.folder, artifacts, latency_conditions)
    else:
        artifacts, latency_conditions = kept_artifacts(run.folder)
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
        robustness=sections.robustness_section(run),
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

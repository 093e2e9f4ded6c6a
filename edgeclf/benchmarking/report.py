"""A sweep as one self-contained page: time against accuracy, every percentile, every doubt, the machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgeclf.benchmarking.plot import accuracy_interval, pareto_plot
from edgeclf.benchmarking.recommend import pareto
from edgeclf.report.plots import to_svg
from edgeclf_device.atomic import write_text
from edgeclf_device.bench import Comparison, Measurement, percentile_texts, remarks, subject_name
from edgeclf_device.bench.text import how, machine_line, names, told


def write_report(path: Path, measurements: Sequence[Measurement], comparisons: Sequence[Comparison] = ()) -> None:
    """Write the page in one piece.

    Raises:
        SystemStateError: the system refused (disk full, permission).
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("edgeclf.benchmarking", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    judged = [one for one in measurements if one.accuracy is not None]
    front = {id(one) for one in pareto(judged)}
    rows = [
        {
            "taken": taken,
            "name": name,
            "percentiles": percentile_texts(taken, told(taken)),
            "stages": {stage: percentile_texts(taken, stage) for stage in taken.samples_ns},
            "accuracy_interval": accuracy_interval(taken),
            "best": id(taken) in front,
            "how": how(taken),
            "remarks": list(remarks(taken)),
        }
        for name, taken in zip(names(measurements), measurements, strict=True)
    ]
    page = environment.get_template("report.html.j2").render(
        rows=rows,
        comparisons=comparisons,
        subject_name=subject_name,
        plot=to_svg(pareto_plot(judged)) if judged else "",
        machines={taken.host: machine_line(taken) for taken in reversed(measurements)}.values(),
    )
    write_text(path, page)

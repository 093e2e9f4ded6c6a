"""Measure honestly: what a frame costs, stage by stage, how sure that is, and whether the machine was fit for it.

``measure`` and ``compare`` take samples, of one classifier or of two in turn; ``measurement`` and ``comparing`` hold
what comes of it; ``conditions`` and ``validity`` tell whether it may be believed; ``text`` renders.
"""

from edgeclf_device.bench.compare import compare
from edgeclf_device.bench.comparing import Comparison, unpaired_ratio
from edgeclf_device.bench.frames import MAX_FRAMES, input_of, load_frames, synthetic_frame
from edgeclf_device.bench.gates import gate
from edgeclf_device.bench.measure import COLD_STARTS, Plan, bench, sample
from edgeclf_device.bench.measurement import PERCENTILES, STAGES, Measurement, Scenario, measurement_from_json
from edgeclf_device.bench.records import (
    compare_with,
    measurements_json,
    read_comparison,
    read_measurements,
    write_measurements,
)
from edgeclf_device.bench.text import comparison_lines, measurement_lines, percentile_texts, remarks, subject_name

__all__ = [
    "COLD_STARTS",
    "MAX_FRAMES",
    "PERCENTILES",
    "STAGES",
    "Comparison",
    "Measurement",
    "Plan",
    "Scenario",
    "bench",
    "compare",
    "compare_with",
    "comparison_lines",
    "gate",
    "input_of",
    "load_frames",
    "measurement_from_json",
    "measurement_lines",
    "measurements_json",
    "percentile_texts",
    "read_comparison",
    "read_measurements",
    "remarks",
    "sample",
    "subject_name",
    "synthetic_frame",
    "unpaired_ratio",
    "write_measurements",
]

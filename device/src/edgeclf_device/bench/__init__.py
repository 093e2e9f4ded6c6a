"""Measure honestly: what a frame costs, stage by stage, and how sure that is.

Measuring (``measure``), data (``measurement``) and what is classified meanwhile (``frames``) are apart; ``environment``
records the machine, ``text`` renders.
"""

from edgeclf_device.bench.frames import MAX_FRAMES, load_frames, synthetic_frame
from edgeclf_device.bench.measure import bench, sample
from edgeclf_device.bench.measurement import PERCENTILES, STAGES, Measurement

__all__ = [
    "MAX_FRAMES",
    "PERCENTILES",
    "STAGES",
    "Measurement",
    "bench",
    "load_frames",
    "sample",
    "synthetic_frame",
]

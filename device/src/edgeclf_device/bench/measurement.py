"""A measurement as data: raw nanosecond samples with the environment beside them, as ``bench --json`` writes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeclf_device.environment import Environment
from edgeclf_device.intervals import percentile_interval

FORMAT = (1, 1)
STAGES = ("prepare", "infer", "decide", "total")
PERCENTILES = (50, 90, 99, 99.9)


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """The samples of one artifact on one engine, and what they were taken with.

    Attributes:
        artifact: file name; ``artifact_sha256`` is of its model bytes.
        scheme, container, artifact_bytes: of that file.
        engine, engine_version, threads: what executed it.
        input: which frames, for people.
        warmup: number of frames classified before the first sample.
        samples_ns: nanoseconds of every sample, in the order taken, for each stage of ``STAGES``.
        environment: the machine, recorded before the first sample.
    """

    artifact: str
    artifact_sha256: str
    artifact_bytes: int
    scheme: str
    container: str
    engine: str
    engine_version: str
    threads: int
    input: str
    warmup: int
    samples_ns: dict[str, list[int]]
    environment: Environment

    def percentiles_ms(self, stage: str) -> dict[str, float]:
        """p50, p90, p99 and p99.9 of a stage in milliseconds, by the nearest-rank method: each is a sample."""
        values = np.percentile(self.samples_ns[stage], PERCENTILES, method="inverted_cdf")
        return {f"p{rank}": float(value) / 1e6 for rank, value in zip(PERCENTILES, values, strict=True)}

    def intervals_ms(self, stage: str) -> dict[str, tuple[float, float] | None]:
        """The 95 % interval of each percentile in milliseconds; None where there are too few samples to have one."""
        samples = np.array(self.samples_ns[stage], np.int64)
        found = {f"p{rank}": percentile_interval(samples, rank) for rank in PERCENTILES}
        return {name: None if ends is None else (ends[0] / 1e6, ends[1] / 1e6) for name, ends in found.items()}

    def to_json(self) -> dict[str, Any]:
        """The measurement as ``bench --json`` writes it: raw samples included."""
        return {
            "format": list(FORMAT),
            **{key: value for key, value in vars(self).items() if key not in ("environment", "samples_ns")},
            "environment": self.environment.to_json(),
            "summary_ms": {stage: self.percentiles_ms(stage) for stage in STAGES},
            "interval_95_ms": {stage: self.intervals_ms(stage) for stage in STAGES},
            "samples_ns": self.samples_ns,
        }

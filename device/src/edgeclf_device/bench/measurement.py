"""A measurement as data: raw nanosecond samples with the environment beside them, as ``bench --json`` writes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from edgeclf_device.bench.cold_start import ColdStart
from edgeclf_device.bench.conditions import Conditions
from edgeclf_device.bench.energy import Energy
from edgeclf_device.bench.validity import Doubt
from edgeclf_device.environment import Environment
from edgeclf_device.errors import DataError
from edgeclf_device.intervals import percentile_interval

FORMAT = (2, 1)
STAGES = ("prepare", "infer", "decide", "total")
"""What every frame's time is made of; ``capture``, ``latency`` and ``transfer`` stand beside them where there are such
samples."""

PERCENTILES = (50, 90, 99, 99.9)

Scenario = Literal["single-stream", "offline", "fixed-rate"]


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """The samples of one artifact on one engine, and what they were taken with.

    Attributes:
        artifact: file name; ``artifact_sha256`` is of its model bytes.
        scheme, container, artifact_bytes: of that file.
        accuracy, accuracy_images: by its certificate, and on how many images; None where it was not measured.
        height, width: of what the model sees, in pixels.
        engine, engine_version, options, threads: what executed it.
        input: which frames, for people.
        scenario: ``single-stream``, one frame after the other; ``offline``, all frames given at once; ``fixed-rate``,
            frames that come when they come, whether the last one is done or not.
        rate_fps: frames that came each second, at a fixed rate.
        warmup: number of frames classified before the first sample.
        steady: whether these had reached a steady level.
        wall_ns: from the first sample's begin to the last one's end, pauses between them included; of one measured in
            turn with another, its own frames alone.
        samples_ns: nanoseconds of every sample, in the order taken, for each stage of ``STAGES``. With ``capture``:
            what reading and decoding took of each of the frames, once, not part of ``total``. With ``latency``: from
            the moment a frame came, by the schedule, to its answer. With ``transfer``: the part of ``infer`` that
            carrying to and from a device with memory of its own took; the rest is the device's time.
        cold_starts: of processes that classify one frame, the model's file already in the system's memory.
        energy: spent while samples were taken; None where the hardware doesn't tell.
        conditions: looks at the machine before, during and after.
        doubts: why the samples may not be believed.
        environment: the machine, recorded before the first sample.
        host: of another machine that was measured over ssh, its name as it was given; None for this one.
    """

    artifact: str
    artifact_sha256: str
    artifact_bytes: int
    scheme: str
    container: str
    accuracy: float | None
    accuracy_images: int | None
    height: int
    width: int
    engine: str
    engine_version: str
    options: Mapping[str, str]
    threads: int
    input: str
    scenario: Scenario
    rate_fps: float | None
    warmup: int
    steady: bool
    wall_ns: int
    samples_ns: dict[str, list[int]]
    cold_starts: tuple[ColdStart, ...]
    energy: Energy | None
    conditions: tuple[Conditions, ...]
    doubts: tuple[Doubt, ...]
    environment: Environment
    host: str | None = None

    @property
    def valid(self) -> bool:
        """Whether nothing is known that makes the samples worthless."""
        return all(doubt.level != "invalid" for doubt in self.doubts)

    @property
    def frames_per_second(self) -> float:
        """Frames answered in each second of the measurement."""
        return len(self.samples_ns["total"]) / self.wall_ns * 1e9

    def percentiles_ms(self, stage: str) -> dict[str, float]:
        """p50, p90, p99 and p99.9 of a stage in milliseconds, by the nearest-rank method: each is a sample."""
        values = np.percentile(self.samples_ns[stage], PERCENTILES, method="inverted_cdf")
        return {f"p{rank}": float(value) / 1e6 for rank, value in zip(PERCENTILES, values, strict=True)}

    def intervals_ms(self, stage: str) -> dict[str, tuple[float, float] | None]:
        """The 95 % interval of each percentile in milliseconds; None where there are too few samples to have one."""
        return {f"p{rank}": self.interval_ms(stage, rank) for rank in PERCENTILES}

    def interval_ms(self, stage: str, rank: float, confidence: float = 0.95) -> tuple[float, float] | None:
        """The interval of one percentile in milliseconds; None where there are too few samples to have one."""
        ends = percentile_interval(np.array(self.samples_ns[stage], np.int64), rank, confidence=confidence)
        return None if ends is None else (ends[0] / 1e6, ends[1] / 1e6)

    def to_json(self) -> dict[str, Any]:
        """The measurement as ``bench --json`` writes it: raw samples included."""
        return {
            "format": list(FORMAT),
            **vars(self),
            "options": dict(self.options),
            "cold_starts": [start.to_json() for start in self.cold_starts],
            "energy": None if self.energy is None else self.energy.to_json(),
            "conditions": [look.to_json() for look in self.conditions],
            "doubts": [doubt.to_json() for doubt in self.doubts],
            "environment": self.environment.to_json(),
            "valid": self.valid,
            "frames_per_second": self.frames_per_second,
            "summary_ms": {stage: self.percentiles_ms(stage) for stage in self.samples_ns},
            "interval_95_ms": {stage: self.intervals_ms(stage) for stage in self.samples_ns},
        }


def measurement_from_json(value: Any) -> Measurement:
    """Read what ``Measurement.to_json`` gave.

    Raises:
        DataError: it is not such a value, or of another major format.
    """
    try:
        major = value["format"][0]
        if major != FORMAT[0]:
            raise DataError(
                f"A measurement of format {FORMAT[0]} is read here, but this one has {major}; measure again."
            )
        given = {"host": None, **value}  # format 2.0 had none
        plain = {key: given[key] for key in Measurement.__dataclass_fields__}
        return Measurement(
            **{
                **plain,
                "cold_starts": tuple(ColdStart(**start) for start in plain["cold_starts"]),
                "energy": None if plain["energy"] is None else Energy(**plain["energy"]),
                "conditions": tuple(Conditions.from_json(look) for look in plain["conditions"]),
                "doubts": tuple(Doubt.from_json(doubt) for doubt in plain["doubts"]),
                "environment": Environment(**plain["environment"]),
            }
        )
    except (KeyError, TypeError, IndexError) as error:
        raise DataError(f"This is not a measurement that bench --json wrote: {error!r} is missing or wrong.") from error

"""What was seen since the start, and how Prometheus reads it: text exposition format 0.0.4.

The format: https://prometheus.io/docs/instrumenting/exposition_formats/.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate

from edgeclf_device.health import Health
from edgeclf_device.sources import SourceStatus
from edgeclf_device.streaming import Event
from edgeclf_device.web.facts import Facts

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BOUNDS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Upper bounds of the histograms' buckets, in seconds."""

STATES = ("starting", "live", "stalled", "ended")
SOURCE_COUNTS = {
    "captured": "Frames that the source captured.",
    "dropped": "Captured frames replaced by newer ones before they were classified.",
    "repeated": "Frames that the source delivered twice; never classified again.",
    "torn": "Frames that arrived damaged; never classified.",
    "faults": "Faults of the source: stalls, unplugging.",
    "recoveries": "Recoveries of the source from a fault.",
}

Sample = tuple[str, Mapping[str, str], float]


class Histogram:
    """Counts of seconds by bucket. One thread observes, any other may read: nothing is locked."""

    def __init__(self) -> None:
        self.sum_s = 0.0
        self._counts = [0] * (len(BOUNDS_S) + 1)

    def observe(self, seconds: float) -> None:
        """Count one value."""
        self._counts[bisect_left(BOUNDS_S, seconds)] += 1
        self.sum_s += seconds

    def samples(self, name: str, labels: Mapping[str, str]) -> Iterator[Sample]:
        """The cumulated buckets, the sum and the count, which is that of the last bucket by construction."""
        cumulated = list(accumulate(self._counts.copy()))
        for bound, count in zip((*map(_number, BOUNDS_S), "+Inf"), cumulated, strict=True):
            yield f"{name}_bucket", {**labels, "le": bound}, count
        yield f"{name}_sum", labels, self.sum_s
        yield f"{name}_count", labels, cumulated[-1]


class Meter:
    """Counters and histograms over all events. One thread observes, any other may read: nothing is locked."""

    def __init__(self) -> None:
        self.frames = 0
        self.rejected = 0
        self.changes = 0
        self.labels: dict[str, int] = {}
        self.stages = {stage: Histogram() for stage in ("capture", "prepare", "infer", "decide", "total")}
        self.age = Histogram()

    def observe(self, event: Event) -> None:
        """Count one event."""
        result = event.result
        self.frames += 1
        self.rejected += not result.accepted
        self.changes += event.decision.changed
        self.labels[result.label] = self.labels.get(result.label, 0) + 1
        self.stages["capture"].observe(event.frame.capture_ms / 1e3)
        for stage, spent_ns in result.timing_ns.items():
            self.stages[stage].observe(spent_ns / 1e9)
        self.stages["total"].observe(event.total_ms / 1e3)
        self.age.observe(event.age_ms / 1e3)


def exposition(
    facts: Facts,
    meter: Meter,
    *,
    state: str,
    fps: float,
    age_ms: float | None,
    status: SourceStatus | None,
    health: Health | None,
    viewers: int,
    viewers_dropped: int,
    kept: tuple[int, int] | None = None,
) -> str:
    """Every metric as Prometheus reads it. What is not known is left out.

    Args:
        facts, meter: of the page.
        state: one of ``STATES``.
        fps: frames classified in a second.
        age_ms: milliseconds since the newest classified frame was captured.
        status, health: the newest known.
        viewers: pages open now; ``viewers_dropped`` were cut off because they took nothing.
        kept: (hard frames kept, hard frames that could not be kept); None where none are to be.
    """
    build = {"version": facts.version, "model": facts.model, "artifact": facts.artifact, "scheme": facts.scheme}
    about = {**build, "engine": facts.engine, "threads": str(facts.threads), "source": facts.source}
    lines = [
        *_one("edgeclf_info", "gauge", "What runs here.", 1, about),
        *_one("edgeclf_frames_total", "counter", "Frames classified.", meter.frames),
        *_one(
            "edgeclf_frames_rejected_total", "counter", "Frames whose score is too low to be believed.", meter.rejected
        ),
        *_one("edgeclf_decision_changes_total", "counter", "Changes of the decision over time.", meter.changes),
        *_family(
            "edgeclf_labels_total",
            "counter",
            "Frames by the label of the highest score.",
            (("edgeclf_labels_total", {"label": label}, count) for label, count in meter.labels.copy().items()),
        ),
        *_family(
            "edgeclf_stage_seconds",
            "histogram",
            "Time spent on a frame, by stage.",
            (
                sample
                for stage, histogram in meter.stages.items()
                for sample in histogram.samples("edgeclf_stage_seconds", {"stage": stage})
            ),
        ),
        *_family(
            "edgeclf_result_age_seconds",
            "histogram",
            "Age of a frame when its result was ready.",
            meter.age.samples("edgeclf_result_age_seconds", {}),
        ),
        *_one("edgeclf_fps", "gauge", "Frames classified in a second.", fps),
        *_one("edgeclf_frame_age_seconds", "gauge", "Age of the newest classified frame now.", _in_seconds(age_ms)),
        *_family(
            "edgeclf_state",
            "gauge",
            "1 for the state that the page is in.",
            (("edgeclf_state", {"state": name}, float(name == state)) for name in STATES),
        ),
        *_one("edgeclf_viewers", "gauge", "Viewers of the page now.", viewers),
        *_one(
            "edgeclf_viewers_dropped_total", "counter", "Viewers cut off because they took nothing.", viewers_dropped
        ),
        *_kept(kept),
        *_source(status),
        *_board(health),
    ]
    return "\n".join(lines) + "\n"


def _source(status: SourceStatus | None) -> Iterator[str]:
    if status is None:
        return
    for field, text in SOURCE_COUNTS.items():
        yield from _one(f"edgeclf_source_{field}_total", "counter", text, getattr(status, field))
    yield from _one("edgeclf_source_fps", "gauge", "Frames captured in a second.", status.fps)


def _board(health: Health | None) -> Iterator[str]:
    if health is None:
        return
    megahertz, free_mib = health.frequency_mhz, health.free_memory_mib
    hertz = None if megahertz is None else megahertz * 1e6
    free_bytes = None if free_mib is None else free_mib * 2**20
    throttled = None if health.throttled is None else any(cause.endswith("now") for cause in health.throttled)
    yield from _one("edgeclf_temperature_celsius", "gauge", "Of the processor.", health.temperature_c)
    yield from _one("edgeclf_throttled", "gauge", "1 while something holds the board back.", throttled)
    yield from _one("edgeclf_frequency_hertz", "gauge", "Clock of the first core.", hertz)
    yield from _one("edgeclf_load_1m", "gauge", "Load average of one minute.", health.load_1_min)
    yield from _one("edgeclf_free_memory_bytes", "gauge", "Memory that programs may still take.", free_bytes)


def _kept(kept: tuple[int, int] | None) -> Iterator[str]:
    held, lost = kept or (None, None)
    yield from _one("edgeclf_hard_frames", "gauge", "Hard frames that the folder holds.", held)
    yield from _one("edgeclf_hard_frames_lost_total", "counter", "Hard frames that could not be kept.", lost)


def _one(
    name: str, kind: str, text: str, value: float | None, labels: Mapping[str, str] | None = None
) -> Iterator[str]:
    return _family(name, kind, text, [] if value is None else [(name, labels or {}, value)])


def _family(name: str, kind: str, text: str, samples: Iterable[Sample]) -> Iterator[str]:
    lines = [_line(*sample) for sample in samples]
    if lines:
        yield f"# HELP {name} {text}"
        yield f"# TYPE {name} {kind}"
        yield from lines


def _line(name: str, labels: Mapping[str, str], value: float) -> str:
    shown = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    return f"{name}{{{shown}}} {_number(value)}" if shown else f"{name} {_number(value)}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return repr(float(value)) if value % 1 else str(int(value))


def _in_seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1e3

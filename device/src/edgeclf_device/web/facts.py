"""What stands in the page's head: which model runs, on what."""

from __future__ import annotations

from dataclasses import dataclass

from edgeclf_device import __version__
from edgeclf_device.classifier import Classifier


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What does not change while the page is served.

    Attributes:
        model: name in the manifest; ``artifact`` is the file's, ``scheme`` its numeric form.
        engine: name and version; ``threads`` it may compute with.
        source: where frames come from, for people. Not its address: that may hold a password.
        labels: how many there are.
        reject_below: score below which a label is not believed; None where every one is.
        version: of edgeclf-device.
    """

    model: str
    artifact: str
    scheme: str
    engine: str
    threads: int
    source: str
    labels: int
    reject_below: float | None
    version: str = __version__


def facts_of(classify: Classifier, source: str) -> Facts:
    """The facts of an open classifier and of the source whose description this is."""
    manifest = classify.manifest
    return Facts(
        model=manifest.name,
        artifact=classify.path.name,
        scheme=manifest.scheme,
        engine=f"{classify.engine.name} {classify.engine.version}",
        threads=classify.threads,
        source=source,
        labels=len(manifest.labels),
        reject_below=manifest.reject_below,
    )

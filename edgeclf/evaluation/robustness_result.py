"""What models keep of their accuracy under corruptions and attacks: the result, its file in a run, how it is told."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from edgeclf.data.dataset import Rejected
from edgeclf.evaluation.corruptions import SEVERITIES
from edgeclf.evaluation.worst_images import PGD_RESTARTS, PGD_STEPS
from edgeclf.training.kept import read_kept
from edgeclf.training.run import Run
from edgeclf_device.atomic import write_text

ROBUSTNESS = "robustness.json"
"""In the run, for its report."""

FORMAT = (1, 0)

IN_FLOAT = "pgd_in_float"
"""Of PGD without rounding, which no camera could give: the network alone can be judged by it."""


@dataclass(frozen=True, kw_only=True)
class ModelRobustness:
    """What one model keeps.

    Attributes:
        model: file name.
        engine: what executed it, with its version.
        accuracy: on the images as they are.
        corruptions: the accuracy in each severity, by corruption.
        attacks: the accuracy at each epsilon, by attack: ``fgsm``, ``pgd`` and, of the network that was attacked,
            ``pgd_in_float``; empty where none was.
    """

    model: str
    engine: str
    accuracy: float
    corruptions: Mapping[str, tuple[float, ...]]
    attacks: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Robustness:
    """What every model keeps, of the same images.

    Attributes:
        data: what the images are of, as it was named.
        split: part of it, or ``all``.
        images: how many.
        seed: of their choice, the corruptions and the attacks.
        epsilons: of the attacks.
        models: the network that the attacks were made on first, where there is one.
        rejected: images that could not be read.
    """

    data: str
    split: str
    images: int
    seed: int
    epsilons: tuple[int, ...]
    models: tuple[ModelRobustness, ...]
    rejected: tuple[Rejected, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The object that ``evaluate --robustness --json`` writes."""
        return {
            "format": list(FORMAT),
            "severities": list(SEVERITIES),
            "pgd": {"steps": PGD_STEPS, "restarts": PGD_RESTARTS},
            **asdict(self),
        }


@dataclass(frozen=True, kw_only=True)
class Ordeal:
    """One corruption or attack, as it is told of.

    Attributes:
        title: its name.
        unit: what ``levels`` are of: ``severity`` or ``epsilon``.
        levels: how strong, rising.
        shares: of each model the accuracy at each level; None: it was not attacked.
    """

    title: str
    unit: str
    levels: tuple[int, ...]
    shares: tuple[tuple[float, ...] | None, ...]


def ordeals(made: Robustness) -> Iterator[Ordeal]:
    """Yield every corruption and every attack that a model went through."""
    kinds = (
        ([one.corruptions for one in made.models], "severity", SEVERITIES),
        ([one.attacks for one in made.models], "epsilon", made.epsilons),
    )
    for given, unit, levels in kinds:
        for name in dict.fromkeys(name for one in given for name in one):
            shares = tuple(one.get(name) for one in given)
            yield Ordeal(title=name.replace("_", " "), unit=unit, levels=levels, shares=shares)


def conditions(made: Robustness) -> Iterator[tuple[str, list[float | None]]]:
    """Yield what was done to the images, in words, and the accuracy that it left each model; None: it was not done."""
    yield "plain", [one.accuracy for one in made.models]
    for ordeal in ordeals(made):
        for place, level in enumerate(ordeal.levels):
            yield (
                f"{ordeal.title}, {ordeal.unit} {level}",
                [None if shares is None else shares[place] for shares in ordeal.shares],
            )


def write_robustness(run: Run, made: Robustness) -> None:
    """Keep ``made`` in the run, for its report.

    Raises:
        SystemStateError: the disk is full or can't be written.
    """
    write_text(run.folder / ROBUSTNESS, json.dumps(made.to_json(), indent=2, ensure_ascii=False) + "\n")


def read_robustness(run: Run) -> Robustness | None:
    """What the run keeps of its robustness; None: nothing.

    Raises:
        ModelError: it is damaged, or of a newer format.
    """
    remedy = "remove it, or evaluate the robustness again"
    return read_kept(run.folder / ROBUSTNESS, _from_json, newest=FORMAT, remedy=remedy)


def _from_json(value: Any) -> Robustness:
    return Robustness(
        data=str(value["data"]),
        split=str(value["split"]),
        images=int(value["images"]),
        seed=int(value["seed"]),
        epsilons=tuple(map(int, value["epsilons"])),
        models=tuple(
            ModelRobustness(
                model=str(one["model"]),
                engine=str(one["engine"]),
                accuracy=float(one["accuracy"]),
                corruptions=_shares(one["corruptions"]),
                attacks=_shares(one["attacks"]),
            )
            for one in value["models"]
        ),
        rejected=tuple(Rejected(**one) for one in value["rejected"]),
    )


def _shares(value: Any) -> dict[str, tuple[float, ...]]:
    return {str(name): tuple(map(float, shares)) for name, shares in value.items()}

"""What an export is asked for, and whether this machine can do it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, TypedDict, Unpack, cast, get_args

from edgeclf.exporting.convention import Kind
from edgeclf_calibration.estimators import ESTIMATORS
from edgeclf_calibration.ranges import MinMax
from edgeclf_calibration.selection import DEFAULT_METHOD, METHODS
from edgeclf_calibration.targets import Target, target_named
from edgeclf_device.engines import ENGINES_OF, installed
from edgeclf_device.errors import DependencyError, UsageError
from edgeclf_device.manifest import Container, Scheme

FORMATS: tuple[Container, ...] = get_args(Container)
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)
DEFAULT_SCHEMES: tuple[Scheme, ...] = ("fp32", "w8a8")
STATIC: tuple[Scheme, ...] = ("w8a8", "w8a16")
"""Schemes with activations in integers, whose ranges are calibrated."""

_FROM_TFLITE: tuple[Scheme, ...] = ("fp32", "w8a8")

CALIBRATION_IMAGES = 200
MAX_DROP_POINTS = 1.0
TIMEOUT_S = 1800.0


class Options(TypedDict, total=False):
    """What can be chosen of an export, by name; what is left out has the default that ``Request`` shows.

    Attributes:
        formats: ``tflite``, ``onnx``; default: all that can be made of the model.
        schemes: ``fp32``, ``fp16``, ``w8a32``, ``w8a8``, ``w8a16`` (.tflite alone).
        calibration_images: how many images calibrate w8a8 and w8a16; all where there are fewer.
        calibration_method: how they are chosen; see ``edgeclf_calibration.choose``.
        estimator: of the ranges of w8a8; see ``edgeclf_calibration.ESTIMATORS``.
        max_drop: points of accuracy that an artifact may lose against the original model.
        seed: of the choice of the calibration images.
        threads: how many to measure with.
        timeout_s: how long the conversion may take.
        c_header: write NAME-w8a8.h beside NAME-w8a8.tflite, for TensorFlow Lite Micro.
        recover: try every way of quantizing to w8a8 and keep what answers most like the float model on images that
            neither calibrate nor judge. Without it that happens where the plain way loses more than ``max_drop`` on
            such images, and layers are left in float where no way keeps to it.
        target: what w8a8 .onnx artifacts are to run on: see ``edgeclf_calibration.TARGETS``; default: x86-64 with VNNI.
        dynamic_batch: let .onnx artifacts take any number of images at once; the runtime still gives them one.
    """

    formats: Sequence[str] | None
    schemes: Sequence[str] | None
    calibration_images: int
    calibration_method: str
    estimator: str
    max_drop: float
    seed: int
    threads: int
    timeout_s: float
    c_header: bool
    recover: bool
    target: str | None
    dynamic_batch: bool


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked for; see ``Options``."""

    formats: tuple[Container, ...] = FORMATS
    schemes: tuple[Scheme, ...] = DEFAULT_SCHEMES
    calibration_images: int = CALIBRATION_IMAGES
    calibration_method: str = DEFAULT_METHOD
    estimator: str = MinMax.name
    max_drop_points: float = MAX_DROP_POINTS
    seed: int = 0
    threads: int = 2
    timeout_s: float = TIMEOUT_S
    c_header: bool = False
    recover: bool = False
    target: Target | None = None
    dynamic_batch: bool = False

    @property
    def calibrated(self) -> tuple[Scheme, ...]:
        """The schemes that need calibration images."""
        return tuple(scheme for scheme in self.schemes if scheme in STATIC)

    @property
    def conversions(self) -> tuple[str, ...]:
        """What the child process must convert to, so that every scheme can be made."""
        pairs = ((container, scheme) for container in self.formats for scheme in self.schemes)
        return tuple(dict.fromkeys(source_of(container, scheme) for container, scheme in pairs))


_CONVERTED: dict[Container, tuple[Scheme, ...]] = {"tflite": ("fp32", "fp16", "w8a32", "w8a16"), "onnx": ("fp32",)}
"""What a framework's converter makes; the other schemes are made of fp32 without one."""


def source_of(container: Container, scheme: Scheme) -> str:
    """The conversion that ``scheme`` is, or is made of."""
    return f"{container}-{scheme if scheme in _CONVERTED[container] else 'fp32'}"


def conversion_of(name: str) -> tuple[Container, Scheme]:
    """Container and scheme of a conversion."""
    container, scheme = name.split("-")
    return cast("tuple[Container, Scheme]", (container, scheme))


def request(makeable: Sequence[Container] = FORMATS, **options: Unpack[Options]) -> Request:
    """A request with formats and schemes checked, ordered and without repetitions.

    Args:
        makeable: the formats where none are named.
        options: what was asked for.

    Raises:
        UsageError: an unknown format, scheme, estimator, method or target, or none; a scheme that a format lacks; fewer
            than one thread or calibration image; a negative drop; a header without w8a8 .tflite; a target or dynamic
            batch without .onnx; an estimator without w8a8, or with every way of recovery.
    """
    given: dict[str, Any] = dict(options)
    formats, schemes = given.pop("formats", None), given.pop("schemes", None)
    if "max_drop" in given:
        given["max_drop_points"] = given.pop("max_drop")
    if given.get("target") is not None:
        given["target"] = target_named(given["target"])
    made = Request(
        formats=cast("tuple[Container, ...]", _among("format", makeable if formats is None else formats, FORMATS)),
        schemes=cast("tuple[Scheme, ...]", _among("scheme", DEFAULT_SCHEMES if schemes is None else schemes, SCHEMES)),
        **given,
    )
    _among("method", [made.calibration_method], METHODS)
    _among("estimator", [made.estimator], tuple(ESTIMATORS))
    for name in ("threads", "calibration_images"):
        if getattr(made, name) < 1:
            raise UsageError(f"{name} must be at least 1, but it is {getattr(made, name)}.")
    if not 0 <= made.max_drop_points <= 100:
        raise UsageError(f"max_drop must be from 0 to 100 points, but it is {made.max_drop_points}.")
    if "w8a16" in made.schemes and "onnx" in made.formats:
        raise UsageError(
            "w8a16 exists in .tflite alone: ONNX Runtime has no convolutions with 16-bit activations; name the format "
            "tflite alone, or leave w8a16 out."
        )
    if (made.target is not None or made.dynamic_batch) and "onnx" not in made.formats:
        raise UsageError(
            "A target and a dynamic batch are choices of .onnx artifacts, but only .tflite was asked for: that runs on "
            "every target, one image at a time; leave the option out, or add format onnx."
        )
    if "estimator" in given and ("w8a8" not in made.schemes or made.recover):
        raise UsageError(
            "An estimator is chosen for w8a8, and --recover tries several, but it was given with "
            f"{'--recover' if made.recover else ', '.join(made.schemes)}; leave it out."
        )
    if made.c_header and not ("tflite" in made.formats and "w8a8" in made.schemes):
        raise UsageError(
            "A C header holds the w8a8 .tflite model, which alone TensorFlow Lite Micro runs, but "
            f"{', '.join(made.formats)} in {', '.join(made.schemes)} was asked for; add format tflite and scheme w8a8."
        )
    return made


def formats_of(kind: Kind) -> tuple[Container, ...]:
    """The formats that a model of ``kind`` can be exported to."""
    return (kind,) if kind in FORMATS else FORMATS


def require_convertible(asked: Request, kind: Kind) -> None:
    """Check that every combination asked for can be made from a model of ``kind``.

    Raises:
        UsageError: one can't; the message says why.
    """
    other = [container for container in asked.formats if container not in formats_of(kind)]
    if other:
        raise UsageError(
            f"From a .{kind} file only .{kind} artifacts are made: there is no faithful way to .{other[0]} but from "
            f"the model it was converted from; ask for --format {kind} alone, or give the .keras file or SavedModel."
        )
    unknown = [scheme for scheme in asked.schemes if kind == "tflite" and scheme not in _FROM_TFLITE]
    if unknown:
        raise UsageError(
            f"From a .tflite file {' and '.join(_FROM_TFLITE)} are made, but {', '.join(unknown)} was asked for: only "
            "TensorFlow's converter writes it, and it reads no .tflite; give the .keras file or SavedModel."
        )


def require_packages(formats: Sequence[Container], kind: Kind = "keras") -> None:
    """Fail before any work where a package that the end of it needs is not installed.

    Raises:
        DependencyError: the message names the extra.
    """
    needed = {} if kind in FORMATS else {"tensorflow": "tensorflow", "keras": "tensorflow"}
    if "onnx" in formats:
        needed |= {} if kind in FORMATS else {"tf2onnx": "onnxruntime"}
        needed |= {"onnx": "onnxruntime"}
    for package, extra in needed.items():
        if find_spec(package) is None:
            raise DependencyError(f'Export needs {package}, which is not installed: pip install "edgeclf[{extra}]".')
    for container in formats:
        engine = ENGINES_OF[container][0]
        if not installed(engine):
            raise DependencyError(
                f"Every artifact is run before it is written, but the engine {engine} for .{container} is not "
                f'installed: pip install "edgeclf[{engine}]", or export the other format alone.'
            )


def _among(what: str, given: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """``given`` in the order of ``known``."""
    unknown = [item for item in given if item not in known]
    if unknown or not given:
        received = f"{', '.join(unknown)} was asked for" if unknown else "none was named"
        raise UsageError(f"A {what} must be one of {', '.join(known)}, but {received}.")
    return tuple(item for item in known if item in given)

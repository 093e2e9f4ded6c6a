"""One C header that holds a .tflite model and what its manifest says, for TensorFlow Lite Micro.

Valid C99 (GCC, Clang), C11 and C++11, in ASCII. Of the schemes, TensorFlow Lite Micro runs w8a8 alone: it has no cast
from uint8, which a model that computes in float begins with.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterator

import numpy as np

from edgeclf_device.errors import ModelError
from edgeclf_device.manifest import Manifest, Tensor, check_consistent
from edgeclf_device.preprocess import CONTRACT_VERSION, RESIZE
from edgeclf_device.quantization import Quantization

_BYTES_A_LINE = 20
_C_TYPES = {"uint8": "uint8_t", "int8": "int8_t", "int16": "int16_t", "float32": "float"}
_PLAIN = Quantization(scale=1.0, zero_point=0)

_HEADER = """\
{comment}
#ifndef {upper}_MODEL_H
#define {upper}_MODEL_H

#include <stdint.h>

#if defined(__cplusplus)
#define {upper}_ALIGNED alignas(16) static const
#elif defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
#define {upper}_ALIGNED static const _Alignas(16)
#elif defined(__GNUC__)
#define {upper}_ALIGNED static const __attribute__((aligned(16)))
#else
#error "The model must begin at a multiple of 16 bytes: compile as C11 or C++11."
#endif

#define {upper}_SCHEME {scheme}
#define {upper}_MODEL_LENGTH {length}
#define {upper}_MODEL_SHA256 "{sha256}"

/* The image, (1, height, width, channels), rows from the top: pixel = scale * (value - zero point), 0 to 255. */
#define {upper}_INPUT_HEIGHT {height}
#define {upper}_INPUT_WIDTH {width}
#define {upper}_INPUT_CHANNELS {channels}
#define {upper}_INPUT_SCALE {input_scale}
#define {upper}_INPUT_ZERO_POINT ({input_zero_point})
typedef {input_type} {lower}_input_type;

/* How the camera's image becomes these pixels: docs/reference/preprocessing.md of edgeclf. */
#define {upper}_PREPROCESSING_CONTRACT {contract}
#define {upper}_COLOR {color}
#define {upper}_CROP {crop}
#define {upper}_CROP_PERMILLE {crop_permille}
#define {upper}_RESIZE {resize}
#define {upper}_LETTERBOX_FILL {fill}

/* The scores, one for each label: score = scale * (value - zero point), 0 to 1. */
#define {upper}_OUTPUT_SCALE {output_scale}
#define {upper}_OUTPUT_ZERO_POINT ({output_zero_point})
typedef {output_type} {lower}_output_type;
{reject}
#define {upper}_LABEL_COUNT {count}
static const char *const {lower}_labels[{upper}_LABEL_COUNT] = {{
{labels}
}};

{upper}_ALIGNED unsigned char {lower}_model[{upper}_MODEL_LENGTH] = {{
{model}
}};

#undef {upper}_ALIGNED

#endif
"""


def c_header(model: bytes, manifest: Manifest) -> str:
    """The text of a self-contained header with the model's bytes, its labels and how to use it.

    Every name begins with the run's, as far as C allows: a run "Solar cells" gives ``solar_cells_model`` and
    ``SOLAR_CELLS_MODEL_LENGTH``. Whoever includes the header gets an own copy of the model: include it once.

    Args:
        model: .tflite bytes without a trailer.
        manifest: what they are.

    Raises:
        ModelError: not a .tflite model, the manifest disagrees with itself, a tensor of another type than uint8,
            int8, int16 and float32, or a label with a NUL, where a C string ends.
    """
    if manifest.container != "tflite" or model[4:8] != b"TFL3":
        raise ModelError(
            f"A C header is made of a .tflite model, but this {manifest.container} model is none; "
            "export with --format tflite."
        )
    check_consistent(manifest)
    image, scores, spec = manifest.inputs[0], manifest.outputs[0], manifest.preprocessing
    lower = identifier(manifest.name)
    upper = lower.upper()
    return _HEADER.format(
        lower=lower,
        upper=upper,
        comment=_comment(manifest),
        scheme=string_literal(manifest.scheme),
        length=len(model),
        sha256=hashlib.sha256(model).hexdigest(),
        height=spec.height,
        width=spec.width,
        channels=spec.shape[2],
        input_scale=float_literal((image.quantization or _PLAIN).scale),
        input_zero_point=(image.quantization or _PLAIN).zero_point,
        input_type=_c_type(image),
        contract=CONTRACT_VERSION,
        color=string_literal(spec.channels),
        crop=string_literal(spec.crop),
        crop_permille=spec.crop_permille,
        resize=string_literal(RESIZE),
        fill=spec.fill,
        output_scale=float_literal((scores.quantization or _PLAIN).scale),
        output_zero_point=(scores.quantization or _PLAIN).zero_point,
        output_type=_c_type(scores),
        reject=_reject(upper, manifest.reject_below),
        count=len(manifest.labels),
        labels=",\n".join(f"    {string_literal(label)}" for label in manifest.labels),
        model=",\n".join(_rows(model)),
    )


def identifier(name: str) -> str:
    """What of ``name`` a C identifier may hold, in small letters: accents go, other signs become one underscore."""
    plain = unicodedata.normalize("NFKD", name.casefold()).encode("ascii", "ignore").decode()
    safe = re.sub(r"[^0-9a-z]+", "_", plain).strip("_")
    return safe if safe[:1].isalpha() else f"edgeclf_{safe}".rstrip("_")


def string_literal(text: str) -> str:
    """A C string literal of the text's UTF-8 bytes: ASCII only, no trigraphs.

    Raises:
        ModelError: there is a NUL in it.
    """
    if "\0" in text:
        raise ModelError(f"A C string ends at a NUL, but the text {text!r} has one inside; rename the class.")
    return '"' + "".join(map(_escaped, text.encode("utf-8"))) + '"'


def float_literal(value: float) -> str:
    """A C literal of the float32 nearest to ``value``."""
    return f"{float(np.float32(value))!r}f"


def float_at_least(value: float) -> float:
    """The least float32 that is not below ``value``: float32 scores compare with it as with ``value`` itself."""
    nearest = np.float32(value)
    return float(nearest if float(nearest) >= value else np.nextafter(nearest, np.float32(np.inf)))


def _escaped(byte: int) -> str:
    """Octal escapes end after three digits, whatever follows; hexadecimal ones would swallow it."""
    character = chr(byte)
    if character in '"\\?':
        return f"\\{character}"
    return character if 32 <= byte < 127 else f"\\{byte:03o}"


def _rows(model: bytes) -> Iterator[str]:
    for start in range(0, len(model), _BYTES_A_LINE):
        yield "0x" + model[start : start + _BYTES_A_LINE].hex(",").replace(",", ",0x")


def _comment(manifest: Manifest) -> str:
    """Name, scheme, accuracy and licences in a C comment that nothing in them can end."""
    facts = {"name": manifest.name, "scheme": manifest.scheme}
    certificate = manifest.certificate
    if certificate is not None and certificate.accuracy is not None:
        facts["accuracy"] = f"{certificate.accuracy:.4f} on {certificate.images} {certificate.split} images"
    licences = manifest.provenance.get("licences")
    if isinstance(licences, dict):
        facts |= {f"licence of the {part}": str(licence) for part, licence in licences.items()}
    text = "\n   ".join(["Made by edgeclf; do not edit.", *(json.dumps({key: facts[key]})[1:-1] for key in facts)])
    return f"/* {text.replace('*/', '* /').replace('/*', '/ *')} */"


def _reject(upper: str, reject_below: float | None) -> str:
    if reject_below is None:
        return ""
    limit = float_literal(float_at_least(reject_below))
    return f"/* A label is to be believed where its score is at least this. */\n#define {upper}_REJECT_BELOW {limit}\n"


def _c_type(tensor: Tensor) -> str:
    if tensor.dtype not in _C_TYPES:
        raise ModelError(
            f"A tensor of a C header must be one of {', '.join(_C_TYPES)}, but {tensor.name!r} is {tensor.dtype}; "
            "export the scheme w8a8."
        )
    return _C_TYPES[tensor.dtype]

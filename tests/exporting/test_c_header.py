"""The C header: compiled without a warning as C and as C++, and read back by a program."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeclf.exporting.c_header import c_header, float_at_least, float_literal, identifier, string_literal
from edgeclf_device.certificate import Certificate
from edgeclf_device.errors import ModelError
from edgeclf_device.manifest import Golden, Manifest, Tensor
from edgeclf_device.preprocess import PrepareSpec
from edgeclf_device.quantization import Quantization

MODEL = (Path(__file__).parents[1] / "device" / "models" / "w8a8.tflite").read_bytes()
LABELS = ('say "hi"', "C:\\new\\7", "??/what??'", "Riß\x07f ひび割れ")
COMPILERS = {
    "c99": ("gcc", "-std=c99"),
    "c11": ("gcc", "-std=c11"),
    "c++11": ("g++", "-std=c++11"),
    "c++20": ("g++", "-std=c++20"),
}
STRICT = ("-Wall", "-Wextra", "-pedantic", "-Werror")

PROGRAM = r"""
#include <stdio.h>
#include "model.h"
#include "other.h"

int main(void) {
  unsigned long sum = 5381;
  unsigned long place;
  const char *c;
  NAME_input_type pixel = 255;
  NAME_output_type score = 7;
  for (place = 0; place < sizeof NAME_model; ++place) sum = (sum * 33 + NAME_model[place]) & 0xffffffffUL;
  printf("%lu %lu %lu\n", sum, (unsigned long)UPPER_MODEL_LENGTH, (unsigned long)((uintptr_t)NAME_model % 16));
  printf("%s %s %s %s %s\n", UPPER_MODEL_SHA256, UPPER_SCHEME, UPPER_COLOR, UPPER_CROP, UPPER_RESIZE);
  printf("%d %d %d\n", UPPER_INPUT_HEIGHT, UPPER_INPUT_WIDTH, UPPER_INPUT_CHANNELS);
  printf("%d %d %d\n", UPPER_PREPROCESSING_CONTRACT, UPPER_CROP_PERMILLE, UPPER_LETTERBOX_FILL);
  printf("%.9g\n", (double)(UPPER_INPUT_SCALE * (float)(pixel - UPPER_INPUT_ZERO_POINT)));
  printf("%.9g\n", (double)(UPPER_OUTPUT_SCALE * (float)(score - UPPER_OUTPUT_ZERO_POINT)));
#ifdef UPPER_REJECT_BELOW
  printf("%.9g\n", (double)UPPER_REJECT_BELOW);
#else
  printf("none\n");
#endif
  for (place = 0; place < UPPER_LABEL_COUNT; ++place) {
    for (c = NAME_labels[place]; *c; ++c) printf("%02x", (unsigned)(unsigned char)*c);
    printf("\n");
  }
  return other_3_model[4] == 'T' ? 0 : 1;
}
"""


def manifest(**changes: object) -> Manifest:
    whole = Manifest(
        name="Zellen 2/3",
        container="tflite",
        scheme="w8a8",
        labels=LABELS,
        preprocessing=PrepareSpec(height=16, width=20, crop="center", crop_fraction=0.875),
        inputs=(Tensor(name="image", dtype="uint8", shape=(1, 16, 20, 3), layout="NHWC"),),
        outputs=(
            Tensor(
                name="scores",
                dtype="uint8",
                shape=(1, len(LABELS)),
                layout="NC",
                quantization=Quantization(scale=1 / 255, zero_point=-2),
            ),
        ),
        golden=Golden(
            generator="fields-1", seed=0, input_sha256="0" * 64, scores=(0.25,) * len(LABELS), tolerance=1 / 256
        ),
        certificate=Certificate(
            split="test",
            images=656,
            accuracy=0.87,
            reference_accuracy=0.875,
            drop_points=0.5,
            agreement=0.98,
            max_drop_points=1.0,
            engine="litert 2.3.0",
        ),
        provenance={"licences": {"data": "CC BY */ #error /* ??/", "weights": "Apache-2.0 \\", "*/ é": "\n©\\"}},
    )
    return dataclasses.replace(whole, **changes)


def need_compiler(compiler: str) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"NO HEADER WAS COMPILED: there is no {compiler} here; install it")


def run_program(folder: Path, compiler: tuple[str, str], described: Manifest) -> list[str]:
    """What the program prints that includes the header, compiled with every warning an error."""
    need_compiler(compiler[0])
    name = identifier(described.name)
    (folder / "model.h").write_text(c_header(MODEL, described), encoding="ascii")
    (folder / "other.h").write_text(c_header(MODEL, manifest(name="other-3")), encoding="ascii")
    source = folder / ("main.cc" if compiler[0] == "g++" else "main.c")
    source.write_text(PROGRAM.replace("NAME", name).replace("UPPER", name.upper()))
    program = folder / "main"
    done = subprocess.run([*compiler, *STRICT, source, "-o", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return subprocess.run([program], capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.mark.parametrize("standard", COMPILERS)
def test_a_program_finds_the_model_and_all_that_is_said_of_it(standard, tmp_path):
    lines = run_program(tmp_path, COMPILERS[standard], manifest(reject_below=0.7))
    checksum = 5381
    for byte in MODEL:
        checksum = (checksum * 33 + byte) & 0xFFFFFFFF
    assert lines[0] == f"{checksum} {len(MODEL)} 0"
    assert lines[1] == f"{hashlib.sha256(MODEL).hexdigest()} w8a8 rgb center halve-then-linear"
    assert lines[2:4] == ["16 20 3", "1 875 114"]
    assert float(lines[4]) == 255
    assert np.float32(lines[5]) == np.float32(1 / 255) * np.float32(9)
    assert float(lines[6]) == pytest.approx(0.7)
    assert [bytes.fromhex(line).decode() for line in lines[7:]] == list(LABELS)


def test_a_float_model_without_a_threshold_needs_no_quantization(tmp_path):
    scores = Tensor(name="scores", dtype="float32", shape=(1, len(LABELS)), layout="NC")
    lines = run_program(tmp_path, COMPILERS["c99"], manifest(scheme="fp32", outputs=(scores,), certificate=None))
    assert float(lines[5]) == 7
    assert lines[6] == "none"


def test_the_licences_stand_in_the_comment():
    comment = c_header(MODEL, manifest()).split("*/")[0]
    assert comment.startswith("/* Made by edgeclf")
    assert '"licence of the data": "CC BY * / #error / * ??/"' in comment
    assert '"accuracy": "0.8700 on 656 test images"' in comment


def test_equal_input_gives_equal_text():
    assert c_header(MODEL, manifest()) == c_header(MODEL, manifest())


def test_four_megabytes_take_less_than_two_seconds():
    model = MODEL[:8] + np.random.default_rng(0).bytes(4 << 20)
    start = time.process_time()
    header = c_header(model, manifest())
    assert time.process_time() - start < 2
    rows = header[header.index("unsigned char") :].split("{\n", 1)[1].split("\n}", 1)[0]
    assert bytes.fromhex(rows.replace("0x", "").replace(",", "").replace("\n", "")) == model


def test_what_no_header_can_hold_is_refused():
    with pytest.raises(ModelError, match="--format tflite"):
        c_header(MODEL, manifest(container="onnx"))
    with pytest.raises(ModelError, match="--format tflite"):
        c_header(b"\x08\x08 an ONNX model", manifest())
    with pytest.raises(ModelError, match="NUL"):
        c_header(MODEL, manifest(labels=("a\0b", "c", "d", "e")))
    with pytest.raises(ModelError, match="float16"):
        c_header(MODEL, manifest(outputs=(dataclasses.replace(manifest().outputs[0], dtype="float16"),)))
    with pytest.raises(ModelError, match="labels"):
        c_header(MODEL, manifest(labels=("one",)))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("solar", "solar"),
        ("Läufe  Größe-2", "laufe_grosse_2"),
        ("3cells", "edgeclf_3cells"),
        ("__init__", "init"),
        ("ひび割れ", "edgeclf"),
        ("", "edgeclf"),
    ],
)
def test_a_runs_name_becomes_an_identifier(name, expected):
    assert identifier(name) == expected


@given(st.text())
def test_any_name_becomes_a_valid_identifier(name):
    assert re.fullmatch(r"[a-z]+(_?[0-9a-z]+)*", identifier(name))


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_a_string_literal_is_ascii_without_trigraphs_and_means_the_text(text):
    literal = string_literal(text)
    assert re.fullmatch(r'"([ !#-\[\]-~]|\\["\\?]|\\[0-7]{3})*"', literal)
    assert "??" not in literal
    plain = re.sub(r"\\([0-7]{3}|.)", lambda found: chr(int(found[1], 8)) if len(found[1]) == 3 else found[1], literal)
    assert plain[1:-1].encode("latin-1").decode() == text


@given(st.floats(0, 1), st.floats(0, 1, width=32))
def test_a_float32_score_passes_the_float32_threshold_just_when_it_passes_the_manifests(threshold, score):
    for one in (score, float(np.float32(threshold))):
        assert (one >= float_at_least(threshold)) == (one >= threshold)


@given(st.floats(1e-30, 1e30))
def test_a_float_literal_is_the_nearest_float32(value):
    literal = float_literal(value)
    assert re.fullmatch(r"\d+(\.\d+)?(e[+-]\d+)?f", literal)
    assert re.search(r"[.e]", literal)
    assert np.float32(literal[:-1]) == np.float32(value)

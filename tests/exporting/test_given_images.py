from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeclf.exporting import run_subject
from edgeclf.exporting.calibration import choose_calibration
from edgeclf.exporting.export import export
from edgeclf.exporting.given_images import halves, read_given
from edgeclf.exporting.request import request
from edgeclf.exporting.run_subject import read_subject
from edgeclf.training.run import read_run
from edgeclf_device.artifact import read_artifact
from edgeclf_device.errors import DataError, UsageError
from edgeclf_device.preprocess import PrepareSpec
from edgeclf_device.text import artifact_lines

pytestmark = pytest.mark.tensorflow  # the run is made with it
LABELS = ("Fläche", "gerändert")
SPEC = PrepareSpec(height=32, width=32)


def test_pictures_at_any_depth_are_read_once_each_and_halved_without_regard_to_their_names(unlabelled, tmp_path):
    found = read_given(unlabelled, LABELS, SPEC)
    assert (len(found), len(set(found.digests)), found.true, found.split) == (30, 30, None, "given")
    calibration, judging = halves(found)
    assert (len(calibration), len(judging), judging.split) == (15, 15, "unlabelled")
    assert set(calibration.digests) | set(judging.digests) == set(found.digests)
    for number, file in enumerate(sorted(unlabelled.rglob("[0-9]*.png"), reverse=True)):
        shutil.copy(file, tmp_path / f"{number:02}.png")
    again = halves(read_given(tmp_path, LABELS, SPEC))
    assert [half.digests for half in again] == [calibration.digests, judging.digests]
    assert (again[1].take([3]) == judging.take([3])).all()


def test_subfolders_named_like_classes_are_labels_and_each_class_is_halved(images):
    found = read_given(images, (*LABELS, "nie gesehen"), SPEC)
    for half in halves(found):
        assert [half.true.tolist().count(one) for one in (0, 1, 2)] == [15, 15, 0]
    assert halves(found)[1].split == "held-out"


def test_the_labels_of_a_listing_count_where_the_model_knows_them(images, tmp_path):
    listing = tmp_path / "list.csv"
    rows = [f"{path},{path.parent.name}" for path in sorted(images.rglob("*.png"))]
    listing.write_text("\n".join(["path,label", *rows]), encoding="utf-8")
    assert read_given(listing, LABELS[::-1], SPEC).true.tolist() == [1] * 30 + [0] * 30
    assert read_given(listing, ("Fläche", "etwas"), SPEC).true is None


@pytest.mark.parametrize("change", ["a subfolder that is no class", "a picture beside the classes"])
def test_a_folder_that_is_not_all_classes_is_unlabelled_and_loses_no_picture(images, tmp_path, change):
    shutil.copytree(images, tmp_path / "some")
    if change == "a picture beside the classes":
        (tmp_path / "some" / LABELS[0] / "ü00.png").rename(tmp_path / "some" / "ü00.png")
    else:
        (tmp_path / "some" / LABELS[0]).rename(tmp_path / "some" / "etwas")
    found = read_given(tmp_path / "some", LABELS, SPEC)
    assert (found.true, len(found)) == (None, 60)


def test_too_few_or_unreadable_pictures_are_refused(unlabelled, tmp_path):
    few = read_given(unlabelled, LABELS, SPEC)
    with pytest.raises(DataError, match="16 different ones are needed, but 15"):
        halves(few.part(range(15)))
    with pytest.raises(DataError, match="none was found"):
        read_given(tmp_path, LABELS, SPEC)
    with pytest.raises(DataError, match="does not exist"):
        read_given(tmp_path / "nowhere", LABELS, SPEC)
    (tmp_path / "kaputt.jpg").write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"kaputt\.jpg"):
        read_given(tmp_path, LABELS, SPEC)


def test_pictures_that_judge_the_run_never_calibrate_it(run_folder, images):
    own, given = read_subject(run_folder), read_subject(run_folder, calibration=images)
    assert set(given.calibration.digests) == set(own.calibration.digests) | set(read_val(run_folder))
    assert (own.calibration.split, given.calibration.split) == ("train", "given")
    assert choose_calibration(given, request(formats=["onnx"], schemes=["w8a8"])).record["source"] == "given"
    assert given.judging.digests == own.judging.digests


def read_val(run_folder) -> list[str]:
    return [row.sha256 for row in read_run(run_folder).splits if row.split == "val"]


def test_int8_of_a_run_without_images_is_refused_before_any_work(bare_run, tmp_path):
    with pytest.raises(UsageError, match="--calibration"):
        export(bare_run, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def command(bare_run, unlabelled, tmp_path_factory) -> tuple[subprocess.CompletedProcess[str], Path]:
    """(the command as it ended, the artifact it made)."""
    out = tmp_path_factory.mktemp("out") / "bundle"
    words = ["export", bare_run, "--out", out, "--calibration", unlabelled, "--format", "tflite", "--scheme", "w8a8"]
    done = subprocess.run(
        [sys.executable, "-m", "edgeclf", *map(str, words)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done, out / "klein-w8a8.tflite"


def test_without_labels_the_certificate_states_the_agreement_alone(command, bare_run, unlabelled):
    subject = read_subject(bare_run, calibration=unlabelled)
    artifact = read_artifact(command[1])
    certificate, record = artifact.manifest.certificate, artifact.manifest.calibration
    assert (certificate.split, certificate.images, certificate.accuracy) == ("unlabelled", 15, None)
    assert certificate.agreement >= 0.9
    assert "without labels no accuracy" in "\n".join(artifact_lines("klein-w8a8.tflite", artifact))
    assert "data_sha256" not in artifact.manifest.provenance
    assert set(record["digests"]) == set(subject.calibration.digests)
    assert not set(record["digests"]) & set(subject.judging.digests)


def test_the_command_says_that_no_gate_was_applied(command, bare_run):
    done = command[0]
    assert re.search(r"--max-drop 1 was not applied\. Same label .* on 15 images: klein-w8a8\.tflite \d", done.stderr)
    assert re.search(r"klein-w8a8\.tflite +\d\.\d\d +– +– +– +\d", done.stdout)
    assert "report" not in done.stdout
    assert not (bare_run / "report.html").exists()


def test_with_labels_the_other_half_judges_a_run_without_images_of_its_own_by_accuracy(bare_run, images):
    subject = read_subject(bare_run, calibration=images)
    assert (subject.judging.split, len(subject.judging), subject.reference) == ("held-out", 30, None)
    assert np.bincount(subject.judging.true).tolist() == [15, 15]
    assert not set(subject.judging.digests) & set(subject.calibration.digests)


def test_the_licence_of_a_file_of_weights_is_said_to_be_unknown_and_its_path_leaves_no_trace(run_folder):
    run = read_run(run_folder)
    found = [
        run_subject._provenance(dataclasses.replace(run, config=dataclasses.replace(run.config, weights=weights)))
        for weights in ("imagenet", "none", "/here/mine.keras", "/there/mine.keras")
    ]
    assert [one["licences"].get("weights") for one in found] == ["Apache-2.0", None, "unknown", "unknown"]
    assert found[2] == found[3] != found[1]

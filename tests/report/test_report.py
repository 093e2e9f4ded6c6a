"""The report is one file that needs nothing from elsewhere and tells what the run holds."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from html.parser import HTMLParser

import pytest

from edgeclf.cli.tables import artifact_table
from edgeclf.evaluation.robustness_result import (
    ROBUSTNESS,
    ModelRobustness,
    Robustness,
    read_robustness,
    write_robustness,
)
from edgeclf.report.artifacts import ARTIFACTS, ArtifactRow
from edgeclf.report.pictures import PICTURES, read_pictures
from edgeclf.report.report import write_report
from edgeclf.training.run import read_run
from edgeclf_device import DataError, ModelError
from edgeclf_device.certificate import ChangedImage, Changes, Paired

ARTIFACT = ArtifactRow(
    file="klein-w8a8.tflite",
    size_bytes=4_000_000,
    accuracy=0.9,
    drop_points=0.125,
    agreement=0.99,
    p50_ms=2.5,
    p90_ms=3,
    p99_ms=4,
)


class Page(HTMLParser):
    """The elements of a page and its text."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def page_of(run, **options):
    return Page(write_report(run, **options).read_text(encoding="utf-8"))


def test_the_report_names_every_class_and_file_as_it_is(made_run):
    page = page_of(made_run(), artifacts=[ARTIFACT], latency_conditions="On a quiet machine.")
    for expected in (
        "heil",
        "Riß <&> ☀ ひび割れ",
        "test <",
        ">.png",
        "x <y>.png: torn",
        "klein-w8a8.tflite",
        "0.12",
        "MIT",
    ):
        assert expected in page.text
    assert "On a quiet machine." in page.text
    assert "train.fine_tune_from" not in page.text
    assert "fine_tune_from" in page.text


def with_changes(run, file, rows):
    """An artifact that takes the images of ``rows`` of the first class for the second one."""
    listed = tuple(ChangedImage(sha256=run.splits[row].sha256, before=0, after=1, true=0) for row in rows)
    changes = Changes(
        max_error=0.31, mean_error=2.5e-6, images=len(rows), per_class=((33, len(rows)), (27, 0)), listed=listed
    )
    paired = Paired(lost=len(rows), gained=0, drop_interval_95=(-0.25, 1.5), mcnemar_p=0.625)
    return dataclasses.replace(ARTIFACT, file=file, paired=paired, changes=changes)


def test_the_report_shows_what_each_artifact_changed_and_each_image_once(made_run):
    run = made_run()
    pictured = read_pictures(run.folder).gallery[0].row
    other = next(row for row in range(120, 180) if row not in {one.row for one in read_pictures(run.folder).gallery})
    rows = [with_changes(run, "k-w8a8.onnx", [pictured]), with_changes(run, "k-w8a8.tflite", [other, pictured])]
    before = page_of(run)
    page = page_of(run, artifacts=rows, latency_conditions="x")
    for expected in ("-0.25 to +1.50", "0.625", "0.31", "2.5e-06", "Images that changed label"):
        assert expected in page.text
        assert expected not in before.text
    changed = page.text[page.text.index("Images that changed label") :]
    change = f"{run.labels[0]} → {run.labels[1]}"
    assert f"{change} in k-w8a8.onnx, k-w8a8.tflite" in changed
    assert changed.index(run.splits[pictured].path) < changed.index(run.splits[other].path)
    assert changed.count(change) == 2
    assert len(page.all("img")) == len(before.all("img")) + 1
    assert re.search(rf"{run.labels[0]}\s*33\s*1\s*2\s", changed)


def test_changed_images_that_the_run_does_not_know_are_named_by_their_digest(made_run):
    run = made_run()
    row = with_changes(run, "k.onnx", [125])
    strange = dataclasses.replace(row.changes.listed[0], sha256="f" * 64, true=None)
    page = page_of(
        run, artifacts=[dataclasses.replace(row, changes=dataclasses.replace(row.changes, listed=(strange,)))]
    )
    assert "f" * 64 in page.text


def test_many_changed_images_are_counted_and_some_are_shown(made_run):
    run = made_run()
    page = page_of(run, artifacts=[with_changes(run, "k.onnx", range(60, 120))])
    assert "some are shown" in page.text
    assert page.text.count(" in k.onnx") == 50


def test_the_table_of_an_export_shows_the_drop_with_its_interval(made_run, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    run = made_run()
    artifact_table([with_changes(run, "k.onnx", [125]), ARTIFACT], "On a quiet machine.")
    rows = capsys.readouterr().out.splitlines()
    assert re.search(r"k\.onnx +4\.00 +90\.00 +\+0\.12 +-0\.25 to \+1\.50 +99\.00 ", rows[1])
    assert re.search(r"klein-w8a8\.tflite .* \+0\.12 +– ", rows[2])


def test_the_report_needs_nothing_from_elsewhere_and_every_picture_has_words(made_run):
    path = write_report(made_run(labels=[f"Klasse {number}" for number in range(12)]))
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert path.stat().st_size < 3_000_000
    assert not [tag for tag, _ in page.elements if tag in ("script", "link", "iframe", "object")]
    assert not re.findall(r"""(?:src|href|url\()\s*=?\s*["']?(?!data:|#)(?:https?:|//|/)""", text)
    assert len(page.all("img")) > 2 * 10
    for image in page.all("img"):
        assert image["src"].startswith("data:image/jpeg;base64,")
        assert image["alt"]
    pictures = [attributes for attributes in page.all("div") if attributes.get("role") == "img"]
    assert len(pictures) == len(page.all("svg")) == 9
    assert all(attributes["aria-label"] for attributes in pictures)


def test_the_worst_errors_come_first(made_run):
    found = re.findall(r"(wrong|right): .*?, (\d+\.\d) %", page_of(made_run(per_class=60)).text)
    wrong = [float(confidence) for verdict, confidence in found if verdict == "wrong"]
    right = [float(confidence) for verdict, confidence in found if verdict == "right"]
    assert [verdict for verdict, _ in found] == ["wrong"] * len(wrong) + ["right"] * len(right)
    assert len(found) == 24
    assert wrong == sorted(wrong, reverse=True)
    assert right == sorted(right)
    assert wrong
    assert right


def test_the_threshold_is_told_with_what_it_accepts(made_run):
    run = made_run()
    reject = run.metrics["confidence"]["reject"]
    page = page_of(run)
    assert f"{reject['threshold']:.4f}" in page.text
    assert "before the temperature of 1.500" in page.text
    without = dataclasses.replace(run, metrics={**run.metrics, "confidence": {"temperature": 1.0, "reject": None}})
    page = page_of(without)
    assert "No score promises that 95.0 %" in page.text
    assert "before the temperature" not in page.text


def test_a_run_without_a_test_part_is_judged_by_its_validation_part(made_run):
    page = page_of(made_run(parts=("val",)))
    assert "60 validation images" in page.text
    assert "Validation images: the wrong ones first" in page.text


def test_what_the_data_report_found_is_shown(made_run):
    found = {
        "notes": ["<Riß> has few images."],
        "near_duplicates": [["a/1.png", "b/2.png"]] * 20,
        "leaks": [{"test": "c.png", "train": "d.png"}],
        "sizes": {"smallest": [30, 40]},
        "conflicts": [],
        "counts": {"near_duplicates": 150, "leaks": 1, "conflicts": 0},
    }
    page = page_of(made_run(data=found))
    assert "<Riß> has few images." in page.text
    assert "Near duplicates: 150" in page.text
    assert "and 130 more" in page.text
    assert page.text.count("a/1.png, b/2.png") == 20
    assert "test c.png, train d.png" in page.text
    assert "smallest: 40×30" in page.text
    assert "Conflicts" not in page.text


def test_a_run_without_pictures_says_so(made_run):
    run = made_run()
    (run.folder / PICTURES).unlink()
    page = page_of(run)
    assert "keeps no pictures" in page.text
    assert not page.all("img")


def test_pictures_of_other_images_are_refused(made_run):
    run = made_run()
    value = json.loads((run.folder / PICTURES).read_bytes())
    value["gallery"][0]["row"] = 0  # of the training part
    (run.folder / PICTURES).write_text(json.dumps(value))
    with pytest.raises(ModelError, match="of other images"):
        write_report(run)


def test_metrics_that_lack_a_figure_are_refused(made_run):
    run = made_run()
    del run.metrics["splits"]["test"]["f1_macro"]
    with pytest.raises(ModelError, match="f1_macro"):
        write_report(run)


def test_a_stock_classifier_has_nothing_to_report(made_run):
    run = made_run()
    with pytest.raises(DataError):
        write_report(dataclasses.replace(run, config=dataclasses.replace(run.config, data="")))


def test_equal_runs_give_equal_reports(made_run):
    run = made_run()
    first = write_report(run).read_bytes()
    assert write_report(read_run(run.folder)).read_bytes() == first


def test_a_report_is_written_without_keras_and_without_tensorflow(made_run, monkeypatch):
    for framework in ("keras", "tensorflow"):
        monkeypatch.setitem(sys.modules, framework, None)
    assert write_report(made_run()).is_file()


def test_what_an_export_measured_stays_in_the_report_that_is_renewed_without_it(made_run):
    run = made_run()
    changes = Changes(
        max_error=0.2,
        mean_error=0.01,
        images=1,
        per_class=((30, 1), (30, 0)),
        listed=(ChangedImage(sha256="0" * 64, before=0, after=1, true=None),),
    )
    paired = Paired(lost=2, gained=1, drop_interval_95=(-0.5, 1.5), mcnemar_p=1.0)
    rows = [ARTIFACT, dataclasses.replace(ARTIFACT, file="klein-fp32.onnx", paired=paired, changes=changes)]
    first = write_report(run, artifacts=rows, latency_conditions="On a quiet machine.").read_bytes()
    assert write_report(run).read_bytes() == first
    (run.folder / ARTIFACTS).write_text('{"format": [1, 0]}')
    with pytest.raises(ModelError, match=r"is damaged .*remove it, or export again"):
        write_report(run)


ROBUSTNESS_MADE = Robustness(
    data="Prüfung <&>",
    split="test",
    images=60,
    seed=0,
    epsilons=(2, 8),
    models=(
        ModelRobustness(
            model="model.keras",
            engine="keras",
            accuracy=0.925,
            corruptions={"noise": (0.9, 0.7, 0.512)},
            attacks={"fgsm": (0.6, 0.2), "pgd": (0.5, 0.1), "pgd_in_float": (0.5, 0.0625)},
        ),
        ModelRobustness(
            model="klein-w8a8.onnx", engine="onnxruntime", accuracy=0.9, corruptions={"noise": (0.9, 0.7, 0.5)}
        ),
    ),
)


def test_what_corruptions_and_attacks_leave_is_told_where_it_is_kept(made_run):
    run = made_run()
    assert "Robustness" not in page_of(run).text
    write_robustness(run, ROBUSTNESS_MADE)
    assert read_robustness(run) == ROBUSTNESS_MADE
    page = page_of(run)
    assert "on 60 images of Prüfung <&> (test)" in page.text
    for cell in ("noise, severity 3", "51.2 %", "pgd in float, epsilon 8", "6.2 %", "–"):
        assert cell in page.text, cell


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "is damaged"),
        ('{"format": [2, 0]}', "has format 2, but this edgeclf reads up to 1; update edgeclf"),
        ("nothing", "is damaged"),
    ],
)
def test_a_robustness_that_can_not_be_read_is_refused(made_run, content, message):
    run = made_run()
    (run.folder / ROBUSTNESS).write_text(content)
    with pytest.raises(ModelError, match=message):
        write_report(run)

"""The report is one file that needs nothing from elsewhere and tells what the run holds."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from html.parser import HTMLParser

import pytest

from edgeclf.report.pictures import PICTURES
from edgeclf.report.report import ArtifactRow, write_report
from edgeclf.training.run import read_run
from edgeclf_device import DataError, ModelError

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

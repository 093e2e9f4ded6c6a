"""Unlabelled images and a teacher: that they are learnt from, alike at every try, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from edgeclf.exporting.run_subject import _provenance
from edgeclf.training.config import DistillConfig, SemiConfig, load_config
from edgeclf.training.journal import CHECKPOINT, folder_of
from edgeclf.training.run import Run, read_history
from edgeclf.training.semi import UnlabelledViews
from edgeclf.training.teacher import Teacher, open_teacher, order_of, soft_targets
from edgeclf.training.train import resolve, train
from edgeclf_device.errors import DataError, ModelError, UsageError

CNN = ["backbone=cnn", "image_size=16", "train.batch_size=8", "train.epochs=3", "model.filters=4", "augment.shift=0"]


def config(data: Path, *more: str):
    return load_config(None, [f"data={json.dumps(str(data))}", *CNN, *more])


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory) -> Path:
    cv2 = pytest.importorskip("cv2")
    folder, draw = tmp_path_factory.mktemp("mehr"), np.random.default_rng(5)
    for index in range(20):
        pixels = (draw.integers(0, 100, (40, 50, 3)) + 130 * (index % 2)).astype(np.uint8)
        cv2.imencode(".png", pixels)[1].tofile(folder / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def teacher(image_folder, tmp_path_factory) -> Run:
    pytest.importorskip("tensorflow")
    chosen = config(image_folder, "train.epochs=6", "train.learning_rate=0.01", "image_size=20", "channels=grey")
    return train(chosen, out=tmp_path_factory.mktemp("runs") / "teacher")


def semi(folder: Path) -> str:
    return f"semi.unlabeled={json.dumps(str(folder))}"


def taught_by(path: Path) -> str:
    return f"distill.teacher={json.dumps(str(path))}"


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (SemiConfig, {"ratio": 0}, "semi.ratio must be from 1 to 64"),
        (SemiConfig, {"weight": 0.0}, "semi.weight must be above 0"),
        (SemiConfig, {"threshold": 1.5}, "semi.threshold must be from 0 to 1"),
        (DistillConfig, {"share": 1.0}, "distill.share must be above 0 and below 1"),
        (DistillConfig, {"temperature": 0.5}, "distill.temperature must be from 1"),
    ],
)
def test_a_value_out_of_its_range_is_refused(kind, values, message):
    with pytest.raises(UsageError, match=message):
        kind(**values)


def test_what_is_not_there_is_refused_before_any_work(tmp_path):
    (tmp_path / "words.txt").write_text("x")
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "bundle.json").write_text("{}")
    for override, error, message in [
        (semi(tmp_path / "none"), DataError, "is not there; name a folder"),
        (semi(tmp_path / "words.txt"), DataError, "is a file; name a folder"),
        (taught_by(tmp_path / "none"), UsageError, "does not exist"),
        (taught_by(tmp_path), UsageError, "has no model.keras"),
        (taught_by(tmp_path / "words.txt"), UsageError, "is none of them"),
        (taught_by(bundle), UsageError, "is a bundle; name one of its artifacts"),
    ]:
        with pytest.raises(error, match=message):
            resolve(config(tmp_path, override))
    with pytest.raises(UsageError, match=r"train\.epochs must be at least 2"):
        resolve(load_config(None, [f"data={json.dumps(str(tmp_path))}", semi(tmp_path), "train.epochs=1"]))


@pytest.mark.parametrize(("name", "content"), [("x.keras", b"PK\x03\x04"), ("x.tflite", b"TFL3"), ("x.onnx", b"\x08")])
def test_a_damaged_or_foreign_teacher_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=name):
        open_teacher(tmp_path / name)


def test_labels_are_matched_by_name_and_others_are_refused():
    known = Teacher(path=Path("t.onnx"), labels=("b", "a"), spec=None, digest="")
    assert order_of(known, ("a", "b")) == [1, 0]
    with pytest.raises(DataError, match=r"t\.onnx lacks c and also knows b; train"):
        order_of(known, ("a", "c"))
    assert order_of(dataclasses.replace(known, labels=None), ("a", "c")) == [0, 1]


@pytest.mark.tensorflow
def test_a_keras_file_alone_must_take_the_images_and_give_the_classes(teacher, image_folder, tmp_path):
    from edgeclf.data import cache

    alone = tmp_path / "alone.keras"
    shutil.copy(teacher.model_path, alone)
    found = open_teacher(alone)
    dataset, _ = cache.load(image_folder, teacher.spec)
    soft = soft_targets(found, dataset, dataset.labels, spec=teacher.spec, temperature=4.0)
    assert soft.shape == (len(dataset.items), 2)
    assert np.allclose(soft.sum(axis=1), 1, atol=1e-6)
    labels = np.array([item.label for item in dataset.items])
    assert (soft.argmax(axis=1) == labels).mean() > 0.8
    same = soft_targets(open_teacher(teacher.folder), dataset, dataset.labels, spec=teacher.spec, temperature=4.0)
    assert np.array_equal(soft, same)
    with pytest.raises(ModelError, match=r"must take the student's images, uint8 \(20, 20, 3\).*name its run"):
        soft_targets(
            found, dataset, dataset.labels, spec=dataclasses.replace(teacher.spec, channels="rgb"), temperature=1
        )
    with pytest.raises(ModelError, match=r"The data has 3 labels, but the teacher .* gives scores \(2,\)"):
        soft_targets(found, dataset, ("a", "b", "c"), spec=teacher.spec, temperature=1)


@pytest.mark.tensorflow
def test_a_run_whose_model_was_replaced_does_not_teach(teacher, tmp_path):
    import keras

    copy = tmp_path / "copy"
    shutil.copytree(teacher.folder, copy)
    keras.saving.load_model(copy / "model.keras").save(copy / "model.keras")
    with pytest.raises(ModelError, match="damaged or was replaced"):
        open_teacher(copy)


@pytest.mark.slow
@pytest.mark.tensorflow
@pytest.mark.parametrize(
    "more",
    [
        (),
        ("model.head=sigmoid", "train.label_smoothing=0"),
        ("augment.mixup=0.2",),
        ("adversarial.method=fgsm",),
    ],
    ids=str,
)
def test_unlabelled_images_and_a_teacher_of_another_size_are_learnt_from(
    image_folder, unlabelled, teacher, tmp_path, more
):
    chosen = config(
        image_folder, semi(unlabelled), taught_by(teacher.folder), "train.epochs=12", "train.learning_rate=3e-3", *more
    )
    run = train(chosen, out=tmp_path / "run")
    assert run.metrics["splits"]["val"]["accuracy"] >= 0.75


@pytest.mark.slow
@pytest.mark.tensorflow
def test_pseudo_labels_are_accepted_where_the_network_is_sure_and_the_report_says_so(
    image_folder, unlabelled, tmp_path
):
    pytest.importorskip("tensorflow")
    from edgeclf.report.report import write_report

    chosen = config(image_folder, semi(unlabelled), "train.epochs=12", "train.learning_rate=3e-3", "semi.threshold=0.8")
    run = train(chosen, out=tmp_path / "run")
    history = read_history(run)
    assert history[0]["accepted"] < history[-1]["accepted"]
    assert history[-1]["accuracy"] >= 0.75
    page = write_report(run).read_text(encoding="utf-8")
    assert "20 images without labels were learnt from too" in page
    assert f"sure enough of {100 * history[-1]['accepted']:.1f} %" in page


@pytest.mark.tensorflow
@pytest.mark.slow
def test_a_training_with_both_resumes_to_the_same_weights_and_not_with_other_images(
    image_folder, unlabelled, teacher, tmp_path
):
    chosen = config(image_folder, semi(unlabelled), taught_by(teacher.folder), "train.ema=0.9")
    told: list[str] = []
    unbroken = train(chosen, out=tmp_path / "unbroken", tell=told.append)
    assert "20 unlabelled images" in told
    assert unbroken.metrics["unlabelled"]["images"] == 20
    assert unbroken.metrics["teacher"] == {"kind": "keras", "sha256": teacher.metrics["model_sha256"]}
    assert all(row["accepted"] == 1 for row in read_history(unbroken))

    def stop(items, description, total=None):
        for number, item in enumerate(items):
            if description == "training (all), epoch 3" and number == 1:
                raise KeyboardInterrupt
            yield item

    with pytest.raises(KeyboardInterrupt):
        train(chosen, out=tmp_path / "broken", progress=stop)
    fewer = tmp_path / "fewer"
    shutil.copytree(unlabelled, fewer)
    (fewer / "0.png").unlink()
    other = dataclasses.replace(chosen, semi=dataclasses.replace(chosen.semi, unlabeled=str(fewer)))
    with pytest.raises(UsageError, match="another configuration or other images"):
        train(other, out=tmp_path / "broken", resume=True)
    assert (folder_of(tmp_path / "broken") / CHECKPOINT).is_file()
    moved = tmp_path / "moved"
    shutil.copytree(unlabelled, moved)
    elsewhere = dataclasses.replace(chosen, semi=dataclasses.replace(chosen.semi, unlabeled=str(moved)))
    resumed = train(elsewhere, out=tmp_path / "broken", resume=True)
    assert resumed.metrics["weights_sha256"] == unbroken.metrics["weights_sha256"]
    stated = _provenance(unbroken)
    assert stated == _provenance(resumed)  # wherever the images and the teacher lie
    assert stated["unlabelled_images"] == 20
    assert stated["teacher_sha256"] == teacher.metrics["model_sha256"]
    assert stated["licences"] == {"unlabelled": "unknown", "teacher": "unknown"}


@pytest.mark.tensorflow
def test_the_weights_of_a_step_give_each_kind_of_image_a_mean_of_its_own(image_folder, unlabelled):
    pytest.importorskip("tensorflow")
    import keras

    from edgeclf.training.images import TrainingImages, Unlabelled

    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 255, (12, 16, 16, 3)).astype(np.uint8)
    more = Unlabelled(pixels=pixels, rows=np.arange(12))
    images = TrainingImages(
        pixels=pixels,
        labels=np.arange(12) % 3,
        weights=np.ones(12, np.float32),
        train=np.arange(12),
        val=np.arange(1),
        classes=3,
        unlabelled=more,
    )
    image = keras.Input((16, 16, 3), dtype="uint8")
    scaled = keras.layers.Rescaling(1 / 255)(image)
    model = keras.Model(image, keras.layers.Dense(3)(keras.layers.Flatten()(scaled)))
    model.compile()
    chosen = config(image_folder, semi(unlabelled), "semi.ratio=2", "semi.weight=0.5", "semi.threshold=0.5")
    views = UnlabelledViews(images, more, chosen, model=model, lower=lambda pixels: pixels)

    def labelled(_epoch: int, _step: int, rows):
        return pixels[rows], images.targets(rows)

    batches = views.batches(labelled)
    rows = np.arange(4)
    inputs, targets = batches(0, 1, rows)
    assert (len(inputs), len(targets)) == (4 + 8 + 8, 4)
    again = batches(0, 1, rows)
    assert np.array_equal(inputs, again[0])
    assert not np.array_equal(inputs[4:], batches(0, 2, rows)[0][4:])
    trained, wanted, weights = views.before_step((inputs, targets, None))
    assert (len(trained), wanted.shape, weights.shape) == (12, (12, 6), (12,))
    assert weights[:4].sum() / 12 == pytest.approx(1)  # Keras divides by all images
    accepted = weights[4:] > 0
    assert weights[4:].sum() / 12 == pytest.approx(0.5 * accepted.mean())
    assert views.accepted() == pytest.approx(accepted.mean())
    assert np.all(wanted[4:, :3] == 0)
    assert np.all(wanted[4:, 3:].sum(axis=1) == 1)

"""The study on a tiny network and drawn images; the road through Keras is tested in tests/cli/test_calibrate.py."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("onnxruntime")
pytest.importorskip("edgeclf")

from edgeclf.calibrating import study as study_module
from edgeclf.calibrating.ground import Ground
from edgeclf.calibrating.outcome import Study, Trial
from edgeclf.calibrating.study import study
from edgeclf.calibrating.study_plot import write_plot
from edgeclf.exporting import pool
from edgeclf.exporting.measure import run_images
from edgeclf.exporting.subject import Images
from edgeclf.exporting.tensors import tensors_of
from edgeclf_calibration import (
    ChannelMeans,
    MinMax,
    MovingAverage,
    Percentile,
    anchored,
    corrected,
    observe,
    quantize_onnx,
    range_stability,
)
from edgeclf_calibration.onnx_int8 import optimised
from edgeclf_calibration.selection import METHODS, choose
from edgeclf_calibration.traces import trace
from edgeclf_device.errors import ModelError, UsageError

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "calibration-study.md"
SIDE, CLASSES, POOL, JUDGING = 12, 3, 40, 30


def network(*, dense: bool = True) -> bytes:
    """uint8 (1, 12, 12, 3): rescaled, convolved, averaged, and a dense layer where ``dense``."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(7)
    weights = {
        "scale": np.float32(1 / 128),
        "w1": rng.normal(0, 0.4, (8, 3, 3, 3)),
        "b1": rng.normal(0, 0.1, 8),
        "w2": rng.normal(0, 0.5, (CLASSES, 8, 1, 1)),
        "b2": np.zeros(CLASSES),
        "w3": rng.normal(0, 2, (CLASSES, CLASSES)),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float", "scale"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"]),
        helper.make_node("GlobalAveragePool", ["c2"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        *([helper.make_node("MatMul", ["flat", "w3"], ["logits"])] if dense else []),
        helper.make_node("Softmax", ["logits" if dense else "flat"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, (1, SIDE, SIDE, 3))],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, (1, CLASSES))],
        [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return optimised(made.SerializeToString())


@pytest.fixture(scope="module")
def ground() -> Ground:
    rng = np.random.default_rng(1)
    base = rng.integers(0, 200, (POOL + JUDGING, 1, 1, 3))
    pixels = (base + rng.integers(0, 56, (POOL + JUDGING, SIDE, SIDE, 3))).astype(np.uint8)
    true = rng.integers(0, CLASSES, POOL + JUDGING)

    def images(rows: range, split: str) -> Images:
        digests = tuple(f"{row:064x}" for row in rows)
        return Images(pixels=pixels, rows=np.array(rows), true=true[list(rows)], digests=digests, split=split)

    return Ground(
        name="tiny",
        labels=("a", "b", "c"),
        container="onnx",
        model=network(),
        pool=images(range(POOL), "train"),
        judging=images(range(POOL, POOL + JUDGING), "val"),
    )


@pytest.fixture
def on_the_ground(ground, monkeypatch):
    """``study`` of what stands in the place of a run."""

    def made(**options) -> Study:
        there = options.pop("ground", ground)
        monkeypatch.setattr(study_module, "read_ground", lambda run, **_: there)
        return study("run", **options)

    return made


def chunks(images: Images, size: int = 7) -> list[np.ndarray]:
    return [images.take(range(start, min(start + size, len(images)))) for start in range(0, len(images), size)]


def calibrated(model: bytes, pixels: np.ndarray) -> bytes:
    """As an export does."""
    estimator, means = MinMax(), ChannelMeans()
    observe(model, anchored(pixels), estimator, means)
    return quantize_onnx(corrected(model, means.means()), estimator.ranges())


@pytest.mark.parametrize("estimator", [MinMax, MovingAverage])
def test_the_ends_of_each_image_give_an_estimator_the_ranges_that_its_tensors_give(ground, estimator):
    traces = trace(ground.model, chunks(ground.pool), with_embeddings=False, threads=1)
    replayed, shown, places = estimator(), estimator(), [3, 1, 17, 30]
    for place in places:
        replayed.update(traces.ends(place))
    observe(ground.model, ground.pool.take(places), shown)
    assert replayed.ranges() == shown.ranges()


def test_the_channels_of_each_image_give_the_means_that_its_tensors_give(ground):
    traces = trace(ground.model, chunks(ground.pool), with_embeddings=False, threads=1)
    replayed, shown = ChannelMeans(), ChannelMeans()
    for place in range(POOL):
        replayed.update(traces.channels(place))
    observe(ground.model, ground.pool.take(range(POOL)), shown)
    assert len(replayed.means()) == 2, "both convolutions"
    for name, values in replayed.means().items():
        np.testing.assert_allclose(values, shown.means()[name], rtol=1e-6)


def test_an_embedding_is_what_the_last_dense_layer_reads(ground):
    import onnx

    traces = trace(ground.model, chunks(ground.pool), with_embeddings=True, threads=1)
    tensors = onnx.load_from_string(ground.model).graph.initializer
    (weights,) = [onnx.numpy_helper.to_array(one) for one in tensors if list(one.dims) == [CLASSES, CLASSES]]
    powers = np.exp(traces.embeddings @ weights)
    scores, _ = run_images(
        ground.model,
        "onnx",
        tensors_of(ground.model, "onnx", "fp32"),
        ground.pool,
        threads=1,
        description="",
    )
    np.testing.assert_allclose(powers / powers.sum(axis=1, keepdims=True), scores, rtol=1e-4)


def test_a_trial_judges_the_model_that_an_export_would_make_of_the_same_images(ground, on_the_ground, monkeypatch):
    made: list[bytes] = []

    def keep(model, ranges):
        made.append(quantize_onnx(model, ranges))
        return made[-1]

    monkeypatch.setattr(study_module, "quantize_onnx", keep)
    on_the_ground(sizes=[4, 12], seeds=[4], methods=["stratified"])
    labels = [ground.labels[one] for one in ground.pool.true]
    choices = [choose(labels, ground.pool.digests, count=count, seed=4) for count in (4, 12)]
    assert made == [calibrated(ground.model, ground.pool.take(choice.indices)) for choice in choices]


@pytest.mark.parametrize("estimator", [MinMax, MovingAverage, Percentile])
def test_the_ranges_of_the_first_half_of_a_choice_are_held_against_those_of_all(ground, on_the_ground, estimator):
    made = on_the_ground(sizes=[4], seeds=[4], methods=["random"], estimator=estimator.name)
    choice = choose(None, ground.pool.digests, count=4, seed=4, method="random")
    pixels, half, whole = anchored(ground.pool.take(choice.indices)), estimator(), estimator()
    observe(ground.model, pixels[:2], half)
    observe(ground.model, pixels, whole)
    assert made.trials[0].range_difference == range_stability(half.ranges(), whole.ranges()).mean > 0


def test_every_method_size_and_seed_is_tried_and_those_that_no_seed_changes_once(on_the_ground):
    made = on_the_ground(sizes=[8, 16, 512], seeds=[0, 1])
    tried = [(trial.method, trial.images, trial.seed) for trial in made.trials]
    assert tried == [
        (method, size, seed)
        for method in ("stratified", "random", "k-center", "extreme")
        for size in (8, 16, POOL)
        for seed in ((0, 1) if method in {"random", "stratified"} else (None,))
    ]
    assert (made.judged_images, made.pool_images, made.split) == (JUDGING, POOL, "val")


def test_all_images_are_the_same_choice_whatever_the_method(on_the_ground):
    made = on_the_ground(sizes=[POOL], seeds=[0])
    assert len({trial.agreement for trial in made.trials}) == 1


@pytest.mark.parametrize("estimator", ["percentile", "mse"])
def test_an_estimator_that_needs_every_value_is_shown_them_again(on_the_ground, estimator):
    clipped = on_the_ground(sizes=[8], seeds=[0], methods=["random"], estimator=estimator)
    assert clipped.estimator == estimator
    assert 0 < clipped.trials[0].agreement <= 1


def test_a_larger_pool_is_drawn_from(ground, on_the_ground, monkeypatch):
    monkeypatch.setattr(pool, "POOL_IMAGES", 10)
    assert on_the_ground(sizes=[8], seeds=[0]).pool_images == 10


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"methods": ["best"]}, "best"),
        ({"methods": []}, "none"),
        ({"estimator": "max"}, "max"),
        ({"sizes": [0]}, "sizes"),
        ({"seeds": []}, "seed"),
    ],
)
def test_what_can_not_be_tried_is_refused_before_anything_is_read(options, word):
    with pytest.raises(UsageError, match=word):
        study("there is no such run", **options)


def test_k_center_is_refused_by_name_where_a_network_has_no_dense_layer(ground):
    with pytest.raises(ModelError, match=r"k-center .*choose by another method"):
        trace(network(dense=False), chunks(ground.pool), with_embeddings=True, threads=1)


def outcome(*trials: tuple[str, int, int | None, float], judged: int = 1000) -> Study:
    """Of (method, images, seed, agreement), which is the accuracy too."""
    return Study(
        name="n",
        estimator="min-max",
        engine="e",
        split="val",
        judged_images=judged,
        pool_images=600,
        reference_accuracy=0.9,
        trials=tuple(
            Trial(
                method=method,
                images=images,
                seed=seed,
                accuracy=share,
                agreement=share,
                range_difference=0.01,
                seconds=1.0,
            )
            for method, images, seed, share in trials
        ),
        seconds=2.0,
    )


def test_the_recommendation_is_the_smallest_number_within_the_tolerance_of_the_best():
    shares = {32: 0.95, 64: 0.978, 128: 0.979, 256: 0.98}
    assert outcome(*(("random", size, 0, share) for size, share in shares.items())).recommended.images == 64


def test_fewer_than_thirty_two_images_are_not_recommended_however_well_they_do():
    made = outcome(("random", 16, 0, 0.99), ("random", 32, 0, 0.98), ("random", 64, 0, 0.98))
    assert (made.recommended.images, made.least_images) == (32, 32)
    all_there_are = outcome(("random", 8, 0, 0.99), ("random", 20, 0, 0.98))
    assert (all_there_are.recommended.images, all_there_are.least_images) == (20, 20)


@pytest.mark.parametrize(("more_images", "recommended"), [(1, 64), (2, 32), (3, 32)])
def test_what_was_tried_once_beats_what_was_tried_often_by_two_images_or_not_at_all(more_images, recommended):
    often = [("stratified", size, seed, share) for size, share in ((32, 0.97), (64, 0.98)) for seed in (0, 1)]
    made = outcome(*often, ("extreme", 32, None, 0.98 + more_images / 1000), judged=1000)
    assert made.recommended.images == recommended


def test_the_luck_of_what_was_tried_once_raises_the_bar_for_nobody():
    often = [("stratified", 32, seed, 0.98) for seed in (0, 1)]
    lucky = outcome(*often, ("k-center", 128, None, 0.983), judged=1000)
    assert (lucky.recommended.method, lucky.best) == ("k-center", 0.983)
    lucky = outcome(*often, ("k-center", 128, None, 0.9815), judged=1000)
    assert (lucky.recommended.method, lucky.best) == ("stratified", 0.98)


def test_a_number_whose_seeds_are_far_apart_is_not_recommended():
    apart = (("random", 32, 0, 0.975), ("random", 32, 1, 0.985))
    made = outcome(*apart, ("random", 64, 0, 0.980), ("random", 64, 1, 0.982))
    assert made.recommended.images == 64
    assert outcome(*apart, ("random", 64, 0, 0.970), ("random", 64, 1, 0.972)).recommended is None


def test_seeds_that_are_as_far_apart_with_the_most_images_are_no_reason_to_take_more():
    made = outcome(*(("random", size, seed, 0.975 + seed / 100) for size in (32, 64, 512) for seed in (0, 1)))
    assert made.recommended.images == 32


def test_one_judging_image_counts_as_nothing_where_it_is_more_than_the_tolerance():
    trials = ("random", 32, 0, 0.98), ("random", 64, 0, 0.99)
    assert outcome(*trials, judged=100).recommended.images == 32
    assert outcome(*trials, judged=1000).recommended.images == 64


def test_of_equally_small_numbers_the_method_that_was_named_first_is_recommended():
    made = outcome(("stratified", 32, 0, 0.98), ("random", 32, 0, 0.981))
    assert (made.recommended.method, made.recommended.images) == ("stratified", 32)


@given(st.lists(st.tuples(st.sampled_from(METHODS), st.sampled_from([16, 32, 64]), st.floats(0, 1)), min_size=1))
def test_a_recommendation_is_further_from_the_best_by_the_tolerance_and_by_luck_at_most(trials):
    made = outcome(*((method, images, 0, share) for method, images, share in trials))
    chosen, best = made.recommended, max(cell.agreement for cell in made.cells if cell.images >= made.least_images)
    allowed = made.tolerance_points + made.once_points  # what was tried once may be better than what counts
    assert chosen is None or 100 * (best - chosen.agreement) <= allowed + 1e-6
    fewer = [made.smallest(method) for method in made.methods]
    assert all(chosen.images <= cell.images for cell in fewer if cell)


def test_thirty_two_chosen_images_are_held_against_the_most_random_ones():
    random = (("random", 32, 0, 0.5), ("random", 512, 0, 0.980), ("random", 512, 1, 0.984))
    made = outcome(*random, ("stratified", 32, 0, 0.9801), ("k-center", 32, None, 0.979), ("k-center", 64, None, 0.99))
    assert [(one.method, one.images, one.random_images, one.holds) for one in made.comparisons] == [
        ("random", 32, 512, False),
        ("stratified", 32, 512, True),
        ("k-center", 32, 512, False),
    ]
    assert made.comparisons[1].accuracy_points == pytest.approx(-0.19)
    assert not outcome(("stratified", 32, 0, 0.98)).comparisons


@pytest.fixture
def unlabelled(ground) -> Ground:
    return replace(ground, pool=replace(ground.pool, true=None), judging=replace(ground.judging, true=None))


def test_images_without_labels_are_judged_by_agreement_alone(on_the_ground, ground, unlabelled, tmp_path):
    known, made = on_the_ground(sizes=[8, 40], seeds=[0]), on_the_ground(sizes=[8, 40], seeds=[0], ground=unlabelled)
    assert made.methods == ("random", "k-center", "extreme")
    assert [one.agreement for one in made.trials] == [
        one.agreement for one in known.trials if one.method != "stratified"
    ]
    assert made.reference_accuracy is None
    assert {one.accuracy for one in made.trials} == {one.accuracy_points for one in made.comparisons} | {None}
    write_plot(made, tmp_path / "study.png")


def test_stratified_is_refused_before_the_work_where_images_have_no_labels(on_the_ground, unlabelled):
    with pytest.raises(UsageError, match=r"stratified needs labels.*--method"):
        on_the_ground(methods=["stratified"], ground=unlabelled)


def test_the_json_is_as_documented_and_survives_a_round_trip(on_the_ground):
    made = json.loads(json.dumps(on_the_ground(sizes=[8, 32, 64], seeds=[0, 1]).to_json()))
    page = PAGE.read_text(encoding="utf-8")
    assert made["format"] == [1, 0]
    for fields in (made, made["trials"][0], made["cells"][0], made["comparisons"][0]):
        for name in fields:
            assert f"`{name}`" in page, name


def test_the_plot_is_a_png_of_some_size(on_the_ground, tmp_path):
    import cv2

    write_plot(on_the_ground(sizes=[8, 16], seeds=[0, 1]), tmp_path / "Bild.png")
    height, width, _ = cv2.imdecode(np.fromfile(tmp_path / "Bild.png", np.uint8), cv2.IMREAD_COLOR).shape
    assert (width, height) == (1500, 630)

from __future__ import annotations

import hashlib
import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeclf_calibration.selection import MAX_LISTED, METHODS, choose
from edgeclf_device.errors import DataError, UsageError

CLASSES = ("dünn", "intakt", "Riß")
listings = st.lists(st.tuples(st.sampled_from(CLASSES), st.integers(0, 400)), min_size=1, max_size=120)


def unzip(listing):
    """Labels and digests; equal numbers are equal images, so they have one label."""
    label_of = {}
    for label, number in listing:
        label_of.setdefault(number, label)
    numbers = [number for _, number in listing]
    return [label_of[n] for n in numbers], [hashlib.sha256(str(n).encode()).hexdigest() for n in numbers]


def seen(listing):
    """What the methods look at: few different numbers, so that many images do equally well."""
    numbers = np.array([number for _, number in listing])
    embeddings = np.stack([numbers % 5, numbers % 3], axis=1).astype(np.float32)
    minima = np.stack([-(numbers % 7), np.zeros_like(numbers)], axis=1).astype(np.float32)
    maxima = np.stack([numbers % 4, numbers % 2], axis=1).astype(np.float32)
    return {"embeddings": embeddings, "minima": minima, "maxima": maxima}


@pytest.mark.parametrize("method", METHODS)
@given(listing=listings, count=st.integers(1, 150), seed=st.integers(0, 5))
def test_as_many_different_images_are_chosen_as_asked_for_or_all(method, listing, count, seed):
    labels, digests = unzip(listing)
    selection = choose(labels, digests, count=count, seed=seed, method=method, **seen(listing))
    assert selection.method == method
    assert selection.count == min(count, len(set(digests)))
    assert len(set(selection.digests)) == selection.count
    assert [digests[index] for index in selection.indices] == list(selection.digests)
    assert Counter(labels[index] for index in selection.indices) == Counter(selection.per_class)
    assert list(selection.per_class) == sorted(set(labels))


@pytest.mark.parametrize("method", METHODS)
@given(listing=listings, count=st.integers(1, 150), seed=st.integers(0, 5), random=st.randoms(use_true_random=False))
def test_neither_the_order_of_the_listing_nor_an_image_listed_again_matters(method, listing, count, seed, random):
    once = [(label, number) for label, (_, number) in zip(unzip(listing)[0], listing, strict=True)]
    again = [*once, *random.choices(once, k=random.randint(0, 20))]
    random.shuffle(again)
    one, other = (choose(*unzip(each), count=count, seed=seed, method=method, **seen(each)) for each in (once, again))
    assert one.digests == other.digests


@pytest.mark.parametrize("method", [method for method in METHODS if method != "stratified"])
@given(listing=listings, seed=st.integers(0, 5))
def test_labels_have_no_say_and_a_smaller_choice_is_the_beginning_of_a_larger_one(method, listing, seed):
    labels, digests = unzip(listing)
    few = choose(labels, digests, count=7, seed=seed, method=method, **seen(listing))
    many = choose(None, digests, count=30, seed=seed, method=method, **seen(listing))
    assert few.digests == many.digests[:7]
    assert many.per_class == {}


@given(listings, st.integers(1, 150), st.integers(0, 5))
def test_each_class_gets_its_share_to_within_one_image_and_at_least_one_where_there_is_room(listing, count, seed):
    labels, digests = unzip(listing)
    selection = choose(labels, digests, count=count, seed=seed)
    sizes = Counter(dict(zip(digests, labels, strict=True)).values())
    assert Counter(labels[index] for index in selection.indices) == Counter(selection.per_class)
    for label, size in sizes.items():
        assert selection.per_class[label] <= size
        if selection.count >= len(sizes):
            assert selection.per_class[label] >= 1
        share = size * selection.count / sum(sizes.values())
        assert share - len(sizes) < selection.per_class[label] < share + 1 + 1e-9 or selection.per_class[label] == 1


def test_the_default_choice_is_what_it_always_was():
    labels, digests = unzip([(CLASSES[n % 7 % 3], n) for n in range(300)])
    selection = choose(labels, digests, count=40, seed=5)
    assert selection.method == "stratified"
    assert selection.indices[:8] == (77, 76, 59, 185, 96, 124, 105, 275)
    assert selection.to_json(estimator="min-max")["images_sha256"] == (
        "9e5032a150a40222c4d987cecaad43667851dccf2ccef20361260c3c76275e2b"
    )


@pytest.mark.parametrize("method", METHODS)
def test_an_image_listed_with_two_labels_is_taken_once(method):
    what = {"embeddings": np.ones((4, 1), np.float32), "minima": np.zeros((4, 1)), "maxima": np.ones((4, 1))}
    for labels in (["b", "a", "b", "a"], ["a", "b", "a", "b"]):
        selection = choose(labels, ["1", "1", "2", "2"], count=4, seed=0, method=method, **what)
        assert sorted(selection.digests) == ["1", "2"]
        assert selection.per_class == {"a": 2, "b": 0}


@pytest.mark.parametrize("method", ["random", "stratified"])
def test_another_seed_chooses_other_images_and_the_same_seed_the_same(method):
    labels, digests = unzip([(CLASSES[n % 3], n) for n in range(300)])
    first, second, other = (choose(labels, digests, count=30, seed=seed, method=method) for seed in (0, 0, 1))
    assert first == second
    assert len(set(first.digests) & set(other.digests)) < 15


def test_the_record_is_json_with_the_digests_of_the_chosen_images():
    labels, digests = unzip([(CLASSES[n % 3], n) for n in range(30)])
    selection = choose(labels, digests, count=9, seed=3)
    record = json.loads(json.dumps(selection.to_json(estimator="min-max")))
    assert record["per_class"] == dict.fromkeys(CLASSES, 3)
    assert record["digests"] == list(selection.digests)
    assert (record["images"], record["seed"], record["estimator"]) == (9, 3, "min-max")
    assert record["images_sha256"] == hashlib.sha256("\n".join(selection.digests).encode()).hexdigest()


def test_a_long_record_holds_the_digest_of_the_list_alone():
    labels, digests = unzip([("a", n) for n in range(MAX_LISTED + 1)])
    record = choose(labels, digests, count=MAX_LISTED + 1, seed=0).to_json(estimator="min-max")
    assert "digests" not in record
    assert len(record["images_sha256"]) == 64


@pytest.mark.parametrize(
    ("labels", "digests", "count", "error"),
    [([], [], 5, DataError), (["a"], ["1"], 0, UsageError), (["a"], ["1", "2"], 1, UsageError)],
)
def test_a_choice_that_can_not_be_made_is_refused(labels, digests, count, error):
    with pytest.raises(error):
        choose(labels, digests, count=count, seed=0)


LAME = np.array([[0.0], [np.nan]], np.float32)


@pytest.mark.parametrize(
    ("error", "words", "arguments"),
    [
        (UsageError, r"one of random, stratified, k-center, extreme.*'k-centre'", {"method": "k-centre"}),
        (UsageError, "stratified needs labels", {"labels": None, "method": "stratified"}),
        (UsageError, "k-center needs embeddings=", {"method": "k-center"}),
        (UsageError, "extreme needs maxima=", {"method": "extreme", "minima": np.zeros((2, 1))}),
        (UsageError, r"\(2, at least 1\).*\(3, 4\)", {"method": "k-center", "embeddings": np.zeros((3, 4))}),
        (UsageError, r"\(2, at least 1\).*\(2, 0\)", {"method": "k-center", "embeddings": np.zeros((2, 0))}),
        (DataError, "embeddings must be finite", {"method": "k-center", "embeddings": LAME}),
        (DataError, "maxima must be finite", {"method": "extreme", "minima": np.zeros((2, 1)), "maxima": LAME}),
        (UsageError, "are 1 and 3", {"method": "extreme", "minima": np.zeros((2, 1)), "maxima": np.ones((2, 3))}),
        (UsageError, "changed places", {"method": "extreme", "minima": np.ones((2, 1)), "maxima": np.zeros((2, 1))}),
    ],
)
def test_a_method_without_what_it_needs_is_refused_with_what_it_lacks(error, words, arguments):
    with pytest.raises(error, match=words):
        choose(**{"labels": ["a", "b"], "digests": ["1", "2"], "count": 1, "seed": 0, **arguments})

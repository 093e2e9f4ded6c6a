from __future__ import annotations

import hashlib
import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeclf_calibration.selection import MAX_LISTED, choose
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


@given(listings, st.integers(1, 150), st.integers(0, 5))
def test_as_many_different_images_are_chosen_as_asked_for_or_all(listing, count, seed):
    labels, digests = unzip(listing)
    selection = choose(labels, digests, count=count, seed=seed)
    assert selection.count == min(count, len(set(digests)))
    assert len(set(selection.digests)) == selection.count
    assert [digests[index] for index in selection.indices] == list(selection.digests)


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


@given(listings, st.integers(1, 150), st.integers(0, 5), st.randoms(use_true_random=False))
def test_the_order_of_the_listing_does_not_matter(listing, count, seed, random):
    labels, digests = unzip(listing)
    shuffled = list(zip(labels, digests, strict=True))
    random.shuffle(shuffled)
    again = choose([one[0] for one in shuffled], [one[1] for one in shuffled], count=count, seed=seed)
    assert again.digests == choose(labels, digests, count=count, seed=seed).digests


def test_another_seed_chooses_other_images_and_the_same_seed_the_same():
    labels, digests = unzip([(CLASSES[n % 3], n) for n in range(300)])
    first, second, other = (choose(labels, digests, count=30, seed=seed) for seed in (0, 0, 1))
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

from __future__ import annotations

import numpy as np
import pytest

from edgeclf.data.duplicates import near_duplicates, perceptual_hashes

cv2 = pytest.importorskip("cv2")

SIDE = 96


def picture(seed: int, side: int = 300) -> np.ndarray:
    """A grey picture with structure of every size, as photographs have it: uint8 (side, side)."""
    random = np.random.default_rng(seed)
    total = np.zeros((side, side), np.float32)
    for cells in (3, 6, 12, 24, 48):
        noise = random.normal(size=(cells, cells)).astype(np.float32) / cells**0.5
        total += cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC)
    return cv2.normalize(total, None, 10, 230, cv2.NORM_MINMAX).astype(np.uint8)


def saved_as_jpeg(image):
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_GRAYSCALE)


COPIES = {
    "saved again as a JPEG of quality 60": saved_as_jpeg,
    "shrunk to 0.7": lambda image: cv2.resize(image, None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA),
    "8 % brighter": lambda image: cv2.convertScaleAbs(image, alpha=1.08),
    "cropped by 2 %": lambda image: image[3:-3, 3:-3],
    "all of it": lambda image: saved_as_jpeg(cv2.convertScaleAbs(image[3:-3, 3:-3], alpha=1.08)),
}


def prepared(images, side: int = SIDE) -> np.ndarray:
    """As the cache holds them: uint8 (N, side, side, 3)."""
    small = [cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA) for image in images]
    return np.repeat(np.stack(small)[..., np.newaxis], 3, axis=3)


@pytest.mark.parametrize("copy", COPIES.values(), ids=COPIES)
def test_a_changed_copy_is_found_and_nothing_else(copy):
    originals = [picture(seed) for seed in range(30)]
    pixels = prepared([*originals, *(copy(image) for image in originals)])
    assert sorted(near_duplicates(pixels)) == [(index, index + 30) for index in range(30)]


def test_things_of_one_kind_that_differ_in_a_detail_are_none():
    def part(seed):
        """The same part each time, with a scratch somewhere."""
        random = np.random.default_rng(seed)
        image = cv2.GaussianBlur(picture(0) // 3 + 80, (0, 0), 4)
        x, y = (int(value) for value in random.integers(40, 220, 2))
        cv2.line(image, (x, y), (x + 30, y + 30), 20, 6)
        return image

    assert near_duplicates(prepared([part(seed) for seed in range(1, 20)])) == []


def test_many_copies_hang_together_by_few_pairs():
    copies = [cv2.convertScaleAbs(picture(1), alpha=0.8 + 0.001 * step) for step in range(60)]
    pairs = near_duplicates(prepared([picture(0), *copies]))
    assert len(pairs) == 59
    joined = {1}
    for _ in pairs:
        joined |= {one for pair in pairs if joined & set(pair) for one in pair}
    assert joined == set(range(1, 61))


def test_flat_pictures_are_not_compared():
    assert near_duplicates(np.full((5, 32, 32, 3), 7, np.uint8)) == []


@pytest.mark.parametrize("count", [0, 1])
def test_few_pictures_have_no_duplicates(count):
    assert near_duplicates(np.zeros((count, 32, 32, 3), np.uint8)) == []


def test_the_result_does_not_depend_on_the_threads_and_the_most_alike_come_first():
    copies = [saved_as_jpeg(picture(seed)) for seed in range(20)] + [picture(seed) for seed in range(5)]
    pixels = prepared([*(picture(seed) for seed in range(20)), *copies])
    pairs = near_duplicates(pixels, threads=1)
    assert pairs == near_duplicates(pixels, threads=7)
    assert sorted(pairs[:5]) == [(seed, 40 + seed) for seed in range(5)]


def test_one_channel_is_compared_as_three_are():
    pixels = prepared([picture(0), picture(1), saved_as_jpeg(picture(1))])
    assert near_duplicates(pixels[..., :1]) == near_duplicates(pixels) == [(1, 2)]


def test_the_hash_is_the_sign_of_the_lowest_frequencies_against_their_median():
    thumbnails = prepared([picture(seed) for seed in range(20)], side=32)[..., 0]
    for thumbnail, found in zip(thumbnails, perceptual_hashes(thumbnails), strict=True):
        low = cv2.dct(thumbnail.astype(np.float32))[:8, :8].ravel()
        bits = np.unpackbits(np.array([found]).view(np.uint8)).astype(bool)
        assert np.mean(bits == (low > np.median(low))) == 1

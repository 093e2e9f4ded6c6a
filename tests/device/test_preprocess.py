from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeclf_device import DataError, ModelError, PrepareSpec, UsageError, prepare
from edgeclf_device.golden import GENERATOR, golden_input

GOLDEN = Path(__file__).parent / "golden" / "prepare.json"
CROPS = ("center", "stretch", "letterbox")
RANDOM_CASES, BATCHES = 10_000, 10


def random_side(rng: np.random.Generator, most: int = 1500) -> int:
    """Log-uniform from 1 to ``most``: small sides, where the edges are, come as often as large ones."""
    return int(np.exp(rng.uniform(0, np.log(most + 1))))


def random_image(rng: np.random.Generator) -> np.ndarray:
    """Grey, RGB or RGBA, in memory as it comes: contiguous, cut out, with gaps, mirrored, or transposed."""
    height, width = random_side(rng), random_side(rng)
    channels = rng.choice([0, 1, 3, 4])
    layout = rng.integers(0, 6)
    sides = (2 * height, 2 * width) if layout == 1 and height * width < 250_000 else (height, width)
    image = np.frombuffer(rng.bytes(sides[0] * sides[1] * max(1, channels)), np.uint8)
    image = image.reshape(sides if channels == 0 else (*sides, channels))
    if sides[0] == 2 * height:
        image = image[::2, ::2]
    elif layout == 2:
        image = image[::-1, ::-1]
    elif layout == 3 and channels == 3:
        image = image[..., ::-1]
    elif layout == 4:
        image = image.swapaxes(0, 1)
    elif layout == 5 and height > 2 and width > 2:
        image = image[1:-1, 1:-1]
    return image


def random_spec(rng: np.random.Generator) -> PrepareSpec:
    return PrepareSpec(
        height=random_side(rng, 400),
        width=random_side(rng, 400),
        channels=str(rng.choice(["rgb", "grey"])),
        crop=str(rng.choice(CROPS)),
        crop_fraction=int(rng.integers(1, 1001)) / 1000,
        fill=int(rng.integers(0, 256)),
    )


def assert_equal_on_every_byte(image: np.ndarray, spec: PrepareSpec, color: str) -> None:
    reference = prepare(image, spec, color=color, backend="numpy")
    fast = prepare(image, spec, color=color, backend="cv2")
    assert reference.shape == spec.shape
    assert reference.dtype == np.uint8
    assert np.array_equal(reference, fast), f"{image.shape} {image.strides} {spec} {color}"


@pytest.mark.parametrize("batch", range(BATCHES))
def test_numpy_and_opencv_give_equal_bytes_for_random_images(batch):
    pytest.importorskip("cv2")
    rng = np.random.default_rng([20261, batch])
    for _ in range(RANDOM_CASES // BATCHES):
        color = str(rng.choice(["rgb", "bgr"]))
        assert_equal_on_every_byte(random_image(rng), random_spec(rng), color)


@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize("size", [(3000, 4000), (4000, 3000)])
def test_numpy_and_opencv_give_equal_bytes_for_photos_of_a_camera(size, crop):
    pytest.importorskip("cv2")
    image = np.frombuffer(np.random.default_rng(1).bytes(size[0] * size[1] * 3), np.uint8).reshape(*size, 3)
    for height, width in ((224, 224), (1999, 1501), (37, 3001)):
        assert_equal_on_every_byte(image, PrepareSpec(height=height, width=width, crop=crop), "bgr")


@settings(max_examples=300, deadline=None)
@given(
    st.integers(1, 90), st.integers(1, 90), st.sampled_from([1, 3, 4]), st.sampled_from(CROPS),
    st.integers(1, 90), st.integers(1, 90), st.integers(1, 1000), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_numpy_and_opencv_give_equal_bytes_where_hypothesis_looks(
    height, width, channels, crop, to_height, to_width, permille, seed
):
    pytest.importorskip("cv2")
    image = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    spec = PrepareSpec(height=to_height, width=to_width, crop=crop, crop_fraction=permille / 1000)
    assert_equal_on_every_byte(image, spec, "rgb")


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from(CROPS), st.integers(0, 255))
def test_an_image_of_one_colour_keeps_it(height, width, crop, value):
    image = np.full((height, width, 3), value, np.uint8)
    spec = PrepareSpec(height=24, width=40, crop=crop, fill=value)
    assert np.all(prepare(image, spec, backend="numpy") == value)


def golden_cases() -> dict[str, tuple[np.ndarray, PrepareSpec, str]]:
    cases = {}
    for height, width in ((720, 1280), (480, 640), (224, 224), (97, 501), (1, 1), (1080, 31)):
        for crop in CROPS:
            image = golden_input(GENERATOR, height, (height, width, 3))
            spec = PrepareSpec(height=224, width=200, crop=crop, crop_fraction=0.875)
            cases[f"{height}x{width} {crop}"] = (image, spec, "rgb")
    image = golden_input(GENERATOR, 1, (300, 300, 4))
    cases["alpha"] = (image, PrepareSpec(height=64, width=64), "rgb")
    cases["bgr"] = (image[..., :3], PrepareSpec(height=64, width=64), "bgr")
    cases["grey to rgb"] = (image[..., 0], PrepareSpec(height=64, width=64), "rgb")
    cases["bgr to grey"] = (image[..., :3], PrepareSpec(height=64, width=64, channels="grey"), "bgr")
    return cases


@pytest.mark.parametrize("backend", ["numpy", "cv2"])
def test_synthetic_images_give_the_golden_bytes(backend, refresh_golden):
    if backend == "cv2":
        pytest.importorskip("cv2")
    found = {
        name: hashlib.sha256(prepare(image, spec, color=color, backend=backend).tobytes()).hexdigest()
        for name, (image, spec, color) in golden_cases().items()
    }
    if refresh_golden and backend == "numpy":
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
    assert found == json.loads(GOLDEN.read_text())


def test_a_frame_is_not_written_to_and_not_shared():
    image = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    before = image.copy()
    result = prepare(image, PrepareSpec(height=8, width=8))
    assert np.array_equal(result, before)
    result[:] = 0
    assert np.array_equal(image, before)


def test_a_read_only_frame_is_taken():
    image = np.zeros((9, 9, 3), np.uint8)
    image.flags.writeable = False
    assert prepare(image, PrepareSpec(height=4, width=4)).shape == (4, 4, 3)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
        [[1, 2], [3, 4]],
        None,
    ],
)
def test_what_is_no_image_is_refused(image):
    with pytest.raises(DataError, match="image"):
        prepare(image, PrepareSpec(height=4, width=4))


def test_an_unknown_colour_order_is_refused():
    with pytest.raises(UsageError, match="rgb or bgr"):
        prepare(np.zeros((4, 4, 3), np.uint8), PrepareSpec(height=4, width=4), color="rbg")


@pytest.mark.parametrize(
    "fields",
    [
        {"height": 0}, {"width": 1 << 16}, {"channels": "cmyk"}, {"crop": "middle"}, {"crop_fraction": 0.0},
        {"crop_fraction": 0.8755}, {"fill": 256}, {"height": 2.0},
    ],
)  # fmt: skip
def test_a_specification_out_of_range_is_refused(fields):
    with pytest.raises(UsageError, match=next(iter(fields))):
        PrepareSpec(**{"height": 4, "width": 4, **fields})


def test_a_specification_survives_its_json():
    spec = PrepareSpec(height=5, width=7, channels="grey", crop="letterbox", crop_fraction=0.5, fill=3)
    assert PrepareSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_another_contract_version_is_refused():
    value = {**PrepareSpec(height=4, width=4).to_json(), "contract": 2}
    with pytest.raises(ModelError, match="contract 2"):
        PrepareSpec.from_json(value)


def test_opencv_is_not_needed(child):
    code = (
        "import sys; sys.modules['cv2'] = None\n"
        "import numpy as np\n"
        "from edgeclf_device import PrepareSpec, prepare, DependencyError\n"
        "print(prepare(np.ones((9, 9, 3), np.uint8), PrepareSpec(height=3, width=3)).sum())\n"
        "try: prepare(np.ones((9, 9, 3), np.uint8), PrepareSpec(height=3, width=3), backend='cv2')\n"
        "except DependencyError as error: print(error)\n"
    )
    done = child(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "27"
    assert "edgeclf-device[camera]" in done.stdout

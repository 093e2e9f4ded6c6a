from __future__ import annotations

import functools

import numpy as np
import pytest

from edgeclf.models import applications
from edgeclf_device.errors import ModelError, UsageError

pytestmark = pytest.mark.tensorflow

NETWORKS = {
    "mobilenet_v2": (applications.MOBILENET_V2, "mobilenet_v2"),
    "mobilenet_v3_small": (applications.MOBILENET_V3_SMALL, "mobilenet_v3"),
    "mobilenet_v3_large": (applications.MOBILENET_V3_LARGE, "mobilenet_v3"),
    "efficientnet_v2_b0": (applications.EFFICIENTNET_V2_B0, "efficientnet_v2"),
    "resnet50": (applications.RESNET50, "resnet50"),
    "vgg16": (applications.VGG16, "vgg16"),
}
QUICK = "mobilenet_v3_small"
SLOW = [pytest.param(name, marks=[] if name == QUICK else pytest.mark.slow) for name in NETWORKS]


@pytest.fixture(scope="module")
def own(keras, shaken):
    """Make keras.applications' own network, its preprocessing inside or in the function returned beside it."""

    @functools.cache
    def make(name):
        network, module = NETWORKS[name]
        body = getattr(keras.applications, network.function)(include_top=False, weights=None, input_shape=(32, 32, 3))
        return shaken(body), getattr(keras.applications, module).preprocess_input

    return make


@pytest.fixture(scope="module")
def ours(build):
    """Build a backbone of three channels, once."""
    return functools.cache(build)


@pytest.mark.parametrize("name", SLOW)
def test_our_network_computes_what_the_published_one_does_on_its_own_preprocessing(keras, ours, own, images, name):
    network, _ = NETWORKS[name]
    published, preprocess = own(name)
    model = ours(name)
    applications.load_published(model, network, published)
    end = network.first_mean or network.first
    expected = keras.Model(published.input, published.get_layer(end).output)(preprocess(images().astype(np.float32)))
    found = keras.Model(model.input, model.get_layer(end).output)(images())
    inner = (slice(None), slice(2, -2), slice(2, -2))  # the padded border is of another colour
    scale = np.abs(np.asarray(expected)).max()
    assert np.abs(np.asarray(found)[inner] - np.asarray(expected)[inner]).max() < 2e-6 * scale
    for layer in published.layers:
        if layer.weights and layer.name not in (network.first, network.first_mean):
            for one, other in zip(layer.get_weights(), model.get_layer(layer.name).get_weights(), strict=True):
                assert np.array_equal(one, other)


@pytest.mark.parametrize(
    ("preparation", "module"),
    [
        (applications._FROM_MINUS_1_TO_1, "mobilenet_v2"),
        (applications._STANDARDIZED, "densenet"),
        (applications._CENTRED_BGR, "vgg16"),
    ],
)
def test_filters_on_our_pixels_equal_the_published_ones_on_theirs(keras, images, preparation, module):
    kernel = np.random.default_rng(0).normal(size=(3, 3, 3, 5)).astype(np.float32)
    theirs = getattr(keras.applications, module).preprocess_input(images().astype(np.float32))
    ours = (images().astype(np.float32) - preparation.our_zero_point) * np.float32(preparation.our_scale)
    prepared, shift = applications._prepared(kernel, preparation)
    expected, found = np.asarray(keras.ops.conv(theirs, kernel)), np.asarray(keras.ops.conv(ours, prepared)) + shift
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.fixture(scope="module")
def published_files(keras, own, tmp_path_factory):
    """The same random weights in the published format, in Keras's newer one, and with a head."""
    import h5py
    from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

    folder = tmp_path_factory.mktemp("weights")
    body, _ = own(QUICK)
    body.save_weights(folder / "newer.weights.h5")
    headed = keras.Model(body.input, keras.layers.Dense(1000)(keras.layers.Flatten()(body.output)))
    for model, name in ((body, "small_no_top.h5"), (headed, "with_top.h5")):
        with h5py.File(folder / name, "w") as file:
            save_weights_to_hdf5_group(file, model)
    return folder, body


@pytest.mark.parametrize("file", ["small_no_top.h5", "newer.weights.h5"])
def test_a_weight_file_gives_every_layer_its_weights(published_files, file):
    folder, body = published_files
    read = applications.read_published(applications.MOBILENET_V3_SMALL, folder / file)
    assert all(np.array_equal(*pair) for pair in zip(read.get_weights(), body.get_weights(), strict=True))


def test_a_grey_network_gives_what_the_same_grey_gives_in_three_channels(keras, build, ours, published_files, images):
    one, three = build(QUICK, channels=1), ours(QUICK)
    for model in (one, three):
        applications.load_published(model, applications.MOBILENET_V3_SMALL, published_files[1])
    one, three = (keras.Model(model.input, model.get_layer("features").output) for model in (one, three))
    grey = images(channels=1)
    expected = three.predict_on_batch(np.repeat(grey, 3, axis=3))
    assert np.abs(one.predict_on_batch(grey) - expected).max() < 1e-5 * np.abs(expected).max()


def test_the_file_with_a_head_and_a_damaged_file_are_refused(published_files, tmp_path):
    folder, _ = published_files
    whole = (folder / "small_no_top.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.h5").write_text("404 not found")
    for file in (folder / "with_top.h5", *sorted(tmp_path.iterdir())):
        with pytest.raises(ModelError, match="without its head"):
            applications.read_published(applications.MOBILENET_V3_SMALL, file)


def test_an_image_that_is_too_small_is_refused(build):
    with pytest.raises(UsageError, match="at least 32"):
        build("resnet50", size=24)

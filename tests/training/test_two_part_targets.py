from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.tensorflow

LOGITS = np.array([[2.0, -1.0, 0.5], [0.1, 0.2, -3.0]], np.float32)
HARD = np.array([[1, 0, 0], [0, 0, 1]], np.float32)
SOFT = np.array([[0.6, 0.3, 0.1], [0.2, 0.2, 0.6]], np.float32)


@pytest.fixture(scope="module")
def keras():
    pytest.importorskip("tensorflow")
    import keras

    return keras


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def test_the_loss_is_that_of_hinton_et_al(keras):
    from edgeclf.training.two_part_targets import TwoPartLoss

    targets = np.concatenate([0.3 * HARD, 0.7 * SOFT], axis=1)
    divergence = (SOFT * (np.log(SOFT) - log_softmax(LOGITS / 4))).sum(1)
    wanted = 0.3 * -(HARD * log_softmax(LOGITS)).sum(1) + 0.7 * 16 * divergence
    loss = TwoPartLoss(label_smoothing=0.0, temperature=4.0)
    assert float(loss(targets, LOGITS)) == pytest.approx(wanted.mean(), rel=1e-5)


def test_a_pseudo_label_has_its_cross_entropy_and_a_target_that_is_met_none(keras):
    from edgeclf.training.two_part_targets import TwoPartLoss

    loss = TwoPartLoss(label_smoothing=0.1, temperature=1.0)
    wanted = -(HARD * log_softmax(LOGITS)).sum(1).mean()
    assert float(loss(np.pad(HARD, ((0, 0), (3, 0))), LOGITS)) == pytest.approx(wanted, rel=1e-5)
    met = np.exp(log_softmax(LOGITS))
    assert float(loss(np.pad(met, ((0, 0), (3, 0))), LOGITS)) == pytest.approx(0, abs=1e-6)


def test_labels_alone_have_the_loss_of_plain_targets_smoothed_or_not(keras):
    from edgeclf.training.two_part_targets import TwoPartLoss

    plain = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    loss = TwoPartLoss(label_smoothing=0.1, temperature=3.0)
    assert float(loss(np.pad(HARD, ((0, 0), (0, 3))), LOGITS)) == pytest.approx(float(plain(HARD, LOGITS)), rel=1e-5)


def test_one_logit_has_the_loss_of_binary_cross_entropy(keras):
    from edgeclf.training.two_part_targets import TwoPartLoss

    logits, targets = LOGITS[:, :1], np.array([[0, 1], [1, 0]], np.float32)
    plain = keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.1)
    loss = TwoPartLoss(label_smoothing=0.1, temperature=1.0)
    wanted = float(plain(targets[:, 1:], logits))
    assert float(loss(np.pad(targets, ((0, 0), (0, 2))), logits)) == pytest.approx(wanted, rel=1e-5)


def test_the_gradient_of_a_part_of_a_target_is_that_part_of_the_gradient(keras):
    import tensorflow as tf

    from edgeclf.training.two_part_targets import TwoPartLoss

    loss = TwoPartLoss(label_smoothing=0.0, temperature=1.0)
    logits = tf.Variable(LOGITS)
    with tf.GradientTape() as tape:
        value = loss(np.pad(0.25 * HARD, ((0, 0), (0, 3))), logits)
    softmax = np.exp(log_softmax(LOGITS))
    assert np.allclose(tape.gradient(value, logits), 0.25 * (softmax - HARD) / 2, atol=1e-6)


def test_accuracy_is_of_labelled_images_alone(keras):
    from edgeclf.training.two_part_targets import LabelledAccuracy

    targets = np.concatenate([np.stack([0.1 * HARD[0], HARD[1] * 0]), SOFT], axis=1)
    accuracy = LabelledAccuracy()
    assert float(accuracy(targets, LOGITS)) == 1.0
    assert float(accuracy(targets, LOGITS[:, ::-1])) == pytest.approx(0.5)

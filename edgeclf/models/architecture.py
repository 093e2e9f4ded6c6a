"""What a network is asked to be: the choices that every backbone shares, and those that a few of them have."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgeclf_device.errors import UsageError

HEADS = ("softmax", "sigmoid")

BATCH_NORM_MOMENTUM = 0.9
"""Of networks with random weights: Keras's 0.99, and the 0.999 of its MobileNets, would need more steps than a training
on a few hundred images has, and the statistics would stay those of no network at all."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The ``model`` table of a configuration.

    Attributes:
        head: ``softmax`` (categorical cross-entropy), or ``sigmoid`` (one logit, binary cross-entropy; two classes).
        hidden: units of a dense layer between the features and the logits; 0: none.
        dropout: share of the features dropped before the logits while training.
        batch_norm: of ``cnn``: BatchNorm after each convolution.
        filters: of ``cnn``: of the first block; the second has twice as many.
        frame_backbone: of ``cnn_lstm``: the image network that sees each frame, by its name in the registry.
        frame_units, lstm_units: of ``cnn_lstm``: sizes of what is kept of a frame, and of the LSTM.
        patch_size, width, depth, attention_heads: of ``vit_tiny``: side of a patch in pixels, size of a token, number
            of blocks, attention heads of each.
    """

    head: str = "softmax"
    hidden: int = 0
    dropout: float = 0.3
    batch_norm: bool = False
    filters: int = 32
    patch_size: int = 16
    width: int = 192
    depth: int = 12
    attention_heads: int = 3
    frame_backbone: str = "cnn"
    frame_units: int = 64
    lstm_units: int = 64

    def __post_init__(self) -> None:
        def require(name: str, constraint: str, *, holds: bool) -> None:
            if not holds:
                raise UsageError(f"model.{name} must be {constraint}, but it is {getattr(self, name)!r}.")

        require("head", f"one of {', '.join(HEADS)}", holds=self.head in HEADS)
        require("hidden", "at least 0", holds=self.hidden >= 0)
        require("dropout", "from 0 to below 1", holds=0 <= self.dropout < 1)
        for name in ("filters", "patch_size", "width", "depth", "attention_heads", "frame_units", "lstm_units"):
            require(name, "at least 1", holds=getattr(self, name) >= 1)
        require("width", "a multiple of model.attention_heads", holds=self.width % self.attention_heads == 0)


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What ``registry.build`` needs to know beside the backbone's name.

    Attributes:
        image_size: side of the square image in pixels.
        channels: 3 or 1.
        classes: number of labels.
        window: frames of a clip; 1 for single images.
        options: the ``model`` table.
    """

    image_size: int
    channels: int
    classes: int
    window: int = 1
    options: ModelConfig = field(default_factory=ModelConfig)

    def __post_init__(self) -> None:
        if self.options.head == "sigmoid" and self.classes != 2:
            raise UsageError(
                f"model.head=sigmoid needs exactly two classes, but there are {self.classes}; use model.head=softmax."
            )

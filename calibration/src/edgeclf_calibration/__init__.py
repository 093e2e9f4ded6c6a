"""edgeclf_calibration: choose calibration images, estimate ranges and quantize fp32 models, without TensorFlow."""

from __future__ import annotations

from edgeclf_calibration.bias_correction import ChannelMeans, corrected
from edgeclf_calibration.coverage import Extremes
from edgeclf_calibration.doubts import Stability, image_doubts, range_doubts, range_stability
from edgeclf_calibration.estimators import ESTIMATORS, Entropy, MeanSquaredError, Percentile
from edgeclf_calibration.histograms import Histogram, Histograms
from edgeclf_calibration.mixed_precision import Layer, MixedPrecision, Trial, int8_share, mixed_precision
from edgeclf_calibration.observe import anchored, observe
from edgeclf_calibration.observe_tflite import LastTensors, counterparts, observe_tflite
from edgeclf_calibration.onnx_batch import dynamic_batch
from edgeclf_calibration.onnx_int8 import onnx_layers, optimised, quantize_onnx
from edgeclf_calibration.onnx_weights import half_precision, quantize_weights
from edgeclf_calibration.ranges import Estimator, MinMax, MovingAverage, Observer, Range
from edgeclf_calibration.recovery import Recovery, Way, plain, recover
from edgeclf_calibration.selection import METHODS, Selection, choose
from edgeclf_calibration.sensitivity import LayerError, Sensitivity, sensitivity_onnx, sensitivity_tflite
from edgeclf_calibration.static import Watched, quantize, watch, written
from edgeclf_calibration.targets import DEFAULT, TARGETS, Target, target_named
from edgeclf_calibration.tflite_int8 import quantize_tflite, tflite_layers

__all__ = [
    "DEFAULT",
    "ESTIMATORS",
    "METHODS",
    "TARGETS",
    "ChannelMeans",
    "Entropy",
    "Estimator",
    "Extremes",
    "Histogram",
    "Histograms",
    "LastTensors",
    "Layer",
    "LayerError",
    "MeanSquaredError",
    "MinMax",
    "MixedPrecision",
    "MovingAverage",
    "Observer",
    "Percentile",
    "Range",
    "Recovery",
    "Selection",
    "Sensitivity",
    "Stability",
    "Target",
    "Trial",
    "Watched",
    "Way",
    "anchored",
    "choose",
    "corrected",
    "counterparts",
    "dynamic_batch",
    "half_precision",
    "image_doubts",
    "int8_share",
    "mixed_precision",
    "observe",
    "observe_tflite",
    "onnx_layers",
    "optimised",
    "plain",
    "quantize",
    "quantize_onnx",
    "quantize_tflite",
    "quantize_weights",
    "range_doubts",
    "range_stability",
    "recover",
    "sensitivity_onnx",
    "sensitivity_tflite",
    "target_named",
    "tflite_layers",
    "watch",
    "written",
]
__version__ = "0.1.0"

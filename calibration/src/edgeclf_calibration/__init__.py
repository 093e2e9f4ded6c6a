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
from edgeclf_calibration.onnx_int8 import onnx_layers, optimised, quantize_onnx
from edgeclf_calibration.onnx_weights import half_precision, quantize_weights
from edgeclf_calibration.ranges import Estimator, MinMax, MovingAverage, Observer, Range
from edgeclf_calibration.selection import METHODS, Selection, choose
from edgeclf_calibration.sensitivity import LayerError, Sensitivity, sensitivity_onnx, sensitivity_tflite
from edgeclf_calibration.static import quantize
from edgeclf_calibration.tflite_int8 import quantize_tflite, tflite_layers

__all__ = [
    "ESTIMATORS",
    "METHODS",
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
    "Selection",
    "Sensitivity",
    "Stability",
    "Trial",
    "anchored",
    "choose",
    "corrected",
    "counterparts",
    "half_precision",
    "image_doubts",
    "int8_share",
    "mixed_precision",
    "observe",
    "observe_tflite",
    "onnx_layers",
    "optimised",
    "quantize",
    "quantize_onnx",
    "quantize_tflite",
    "quantize_weights",
    "range_doubts",
    "range_stability",
    "sensitivity_onnx",
    "sensitivity_tflite",
    "tflite_layers",
]
__version__ = "0.1.0"

"""edgeclf_calibration: choose calibration images, estimate ranges and quantize fp32 models, without TensorFlow."""

from __future__ import annotations

from edgeclf_calibration.bias_correction import ChannelMeans, corrected
from edgeclf_calibration.coverage import Extremes
from edgeclf_calibration.doubts import Stability, image_doubts, range_doubts, range_stability
from edgeclf_calibration.estimators import ESTIMATORS, Entropy, MeanSquaredError, Percentile
from edgeclf_calibration.histograms import Histogram, Histograms
from edgeclf_calibration.observe import anchored, observe
from edgeclf_calibration.observe_tflite import LastTensors, counterparts, observe_tflite
from edgeclf_calibration.onnx_int8 import optimised, quantize_onnx
from edgeclf_calibration.onnx_weights import half_precision, quantize_weights
from edgeclf_calibration.ranges import Estimator, MinMax, MovingAverage, Observer, Range
from edgeclf_calibration.selection import METHODS, Selection, choose
from edgeclf_calibration.tflite_int8 import quantize_tflite

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
    "MeanSquaredError",
    "MinMax",
    "MovingAverage",
    "Observer",
    "Percentile",
    "Range",
    "Selection",
    "Stability",
    "anchored",
    "choose",
    "corrected",
    "counterparts",
    "half_precision",
    "image_doubts",
    "observe",
    "observe_tflite",
    "optimised",
    "quantize_onnx",
    "quantize_tflite",
    "quantize_weights",
    "range_doubts",
    "range_stability",
]
__version__ = "0.1.0"

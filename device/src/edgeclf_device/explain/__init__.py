"""Why an artifact takes the time it takes: what computes it, in which numbers, and what holds int8 back.

Looking (``observe``, with ``processor``, ``profile_onnx``, ``profile_tflite`` and ``litert_times``), data
(``explanation``), judging (``causes``, pure) and text (``lines``) are apart.
"""

from edgeclf_device.explain.causes import Facts, facts_of, why_int8_is_slow
from edgeclf_device.explain.explanation import Comparison, Explanation, InstructionSet, Operator, Profile
from edgeclf_device.explain.lines import explanation_lines
from edgeclf_device.explain.observe import explain, fp32_sibling
from edgeclf_device.explain.processor import instruction_sets

__all__ = [
    "Comparison",
    "Explanation",
    "Facts",
    "InstructionSet",
    "Operator",
    "Profile",
    "explain",
    "explanation_lines",
    "facts_of",
    "fp32_sibling",
    "instruction_sets",
    "why_int8_is_slow",
]

"""ONNX Runtime on a device with memory of its own: input and output stay there, at addresses that do not change.

A CUDA graph replays kernels with the addresses that it recorded, so what it reads and writes is made once and filled
anew for each run (https://onnxruntime.ai/docs/api/python/api_summary.html, IOBinding). It works with the processor's
memory as well, without a gain: that is how it is tested where there is no GPU.
"""

from __future__ import annotations

from time import perf_counter_ns
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeclf_device.engines.onnx_providers import SKIP_CAPTURE
from edgeclf_device.engines.onnxruntime import OnnxRuntime, calling


class Bound:
    """One input and one output of a session, in the memory of a device, for one number of images.

    Args:
        session: ONNX Runtime's.
        device: ONNX Runtime's name of the memory: ``cuda``, ``cpu``.
        source, target: name, dtype and shape of input and output, batch first.
        capture: whether a session that records CUDA graphs is to do so here.
    """

    def __init__(
        self,
        session: Any,
        device: str,
        source: tuple[str, str, tuple[int, ...]],
        target: tuple[str, str, tuple[int, ...]],
        *,
        capture: bool,
    ) -> None:
        import onnxruntime

        def memory(dtype: str, shape: tuple[int, ...]) -> Any:
            return onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, np.dtype(dtype).type, device, 0)

        self._session, self._binding = session, session.io_binding()
        self._input, self._output = memory(*source[1:]), memory(*target[1:])
        self._binding.bind_ortvalue_input(source[0], self._input)
        self._binding.bind_ortvalue_output(target[0], self._output)
        self._settings = None
        if not capture:
            self._settings = onnxruntime.RunOptions()
            self._settings.add_run_config_entry(*SKIP_CAPTURE)
        # The first run chooses kernels and records the graph: not to be left to the first frame.
        self.put(np.zeros(source[2], source[1]))
        self.run()

    def put(self, batch: NDArray[Any]) -> None:
        """Carry the input to the device."""
        self._input.update_inplace(batch)

    def run(self) -> None:
        """Compute the output there from the input there, and wait for it."""
        self._session.run_with_iobinding(self._binding, self._settings)

    def get(self) -> NDArray[Any]:
        """The output, carried back into memory of its own."""
        return np.array(self._output.numpy())  # numpy() of what the processor can reach is a view


class OnnxDevice(OnnxRuntime):
    """An .onnx model in a session of ONNX Runtime that computes in the memory of ``device``."""

    def __init__(self, session: Any, version: str, device: str) -> None:
        super().__init__(session, version)
        self._device = device
        self._bound: tuple[int, Bound] | None = None
        if not self.open_batch:
            calling(self._binding_for, self.input_shape[0])

    def run(self, batch: NDArray[Any]) -> NDArray[Any]:
        """See ``Engine.run``; ``transfer_ns`` is renewed."""
        return calling(self._run, batch)

    def close(self) -> None:
        """See ``Engine.close``."""
        self._bound = None
        super().close()

    def _run(self, batch: NDArray[Any]) -> NDArray[Any]:
        bound = self._binding_for(len(batch))
        begin = perf_counter_ns()
        bound.put(batch)
        there = perf_counter_ns()
        bound.run()
        done = perf_counter_ns()
        output = bound.get()
        self.transfer_ns = there - begin + perf_counter_ns() - done
        return output

    def _binding_for(self, images: int) -> Bound:
        """The last one, where it is for as many images: open batches of one size after the other share it."""
        if self._bound is None or self._bound[0] != images:
            source, target = (
                (name, dtype, (images, *shape[1:]))
                for name, dtype, shape in (
                    (self.input_name, self.input_dtype, self.input_shape),
                    (self.output_name, self.output_dtype, self.output_shape),
                )
            )
            bound = Bound(self._session, self._device, source, target, capture=not self.open_batch)
            self._bound = images, bound
        return self._bound[1]

"""The child process of an export: ``python -m edgeclf.exporting.child JOB.json``."""

from __future__ import annotations

import errno
import json
import os
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from edgeclf.exporting.job import Job, Loaded, error_line
from edgeclf_device.errors import EdgeclfError, ModelError, SystemStateError, first_line
from edgeclf_device.golden import GENERATOR, golden_input

ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "-1",  # a conversion gains nothing from a GPU and must not depend on one
    "KERAS_BACKEND": "tensorflow",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
"""What the parent sets; TensorFlow reads it when it is imported."""


_DISK_FULL = tuple(os.strerror(code) for code in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT))
"""TensorFlow reports a failed write under several names, but with the system's words in it."""


def main(job_path: str) -> int:
    """Do the job and print one line for each finished step; the exit code."""
    _end_with_parent()
    answers = _private_stdout()
    job = Job.from_json(Path(job_path).read_text(encoding="utf-8"))
    try:
        _convert_all(job, answers)
    except Exception as error:  # noqa: BLE001 - whatever a converter raises must reach the parent as a sentence
        _answer(answers, error_line(_explained(error)))
        return 1
    return 0


def _convert_all(job: Job, answers: TextIO) -> None:
    from edgeclf.exporting.original import load, require_probabilities

    original = load(job)
    golden = original.scores(np.stack([golden_input(GENERATOR, seed, job.shape) for seed in job.golden_seeds]))
    if job.convention is not None:
        require_probabilities(golden)
    probe = None if job.probe is None else original.scores(np.load(job.probe, allow_pickle=False))
    _answer(answers, asdict(Loaded(golden=golden.tolist(), probe=[] if probe is None else probe.tolist())))
    for image in () if job.judging is None else np.load(job.judging, mmap_mode="r", allow_pickle=False):
        _answer(answers, {"scores": original.scores(image[np.newaxis])[0].tolist()})
    for conversion in job.conversions:
        try:
            converted = original.converted(conversion)
        except Exception as error:
            container, scheme = conversion.split("-")
            error.add_note(f"{scheme} .{container}")
            raise
        Job.path_of(Path(job.folder), conversion).write_bytes(converted)
        _answer(answers, {"converted": conversion})


def _explained(error: Exception) -> EdgeclfError:
    import traceback

    traceback.print_exception(error)
    if isinstance(error, EdgeclfError):
        return error
    reason = first_line(error)
    if isinstance(error, OSError) or any(full in str(error) for full in _DISK_FULL):
        return SystemStateError(f"The converter could not write its files ({reason}); free space and try again.")
    doing = " ".join(getattr(error, "__notes__", ())) or "the model"
    return ModelError(f"The converter refuses {doing} ({type(error).__name__}: {reason}); try another scheme.")


def _answer(answers: TextIO, line: dict[str, Any]) -> None:
    answers.write(json.dumps(line) + "\n")
    answers.flush()


def _private_stdout() -> TextIO:
    """The pipe to the parent, out of reach of converters that print: their standard output becomes the error stream."""
    pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return pipe


def _end_with_parent() -> None:
    """Leave when standard input closes: a parent that was killed can't kill its child."""

    def wait() -> None:
        os.read(0, 1)  # not sys.stdin, whose lock this thread would hold while the interpreter shuts down
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    code = main(sys.argv[1])
    sys.stderr.flush()
    os._exit(code)  # everything is said: TensorFlow's own shutdown takes time and may crash

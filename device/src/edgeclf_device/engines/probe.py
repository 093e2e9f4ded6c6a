"""Does an engine work here? Run a model of one operator on it; ``doctor`` does so in a child process."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgeclf_device.engines import ENGINES_OF, open_engine
from edgeclf_device.errors import SystemStateError


def probe(engine: str, **options: str) -> str:
    """Build an interpreter, run it once on the number 1 (both probe models answer 2), and give its name and version.

    Args:
        engine: its name.
        options: of the engine, see ``engines.OPTIONS``.

    Raises:
        DependencyError: the engine, or what the options name, does not load.
        ModelError: it refuses the model.
        SystemStateError: it gives a wrong answer.
    """
    container = next(kind for kind, names in ENGINES_OF.items() if engine in names)
    model = Path(__file__).with_name(f"probe.{container}").read_bytes()
    loaded = open_engine(model, container, engine=engine, options=options)
    answer = float(loaded.run(np.ones(loaded.input_shape, loaded.input_dtype))[0])
    if answer != 2.0:
        raise SystemStateError(f"{engine} answers {answer} where 2 is right; install it again.")
    return f"{loaded.name} {loaded.version}"

"""What every benchmark writes beside its figures: when, from which commit, and on what."""

from __future__ import annotations

import json
import math
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

from edgeclf_device.environment import record_environment

RESULTS = Path(__file__).parent / "results"


def commit() -> str:
    """The commit that is checked out."""
    git = ["git", "rev-parse", "HEAD"]
    return subprocess.run(git, capture_output=True, text=True, check=False, cwd=RESULTS).stdout.strip()


def write_record(path: Path, **figures: Any) -> None:
    """Write ``figures`` and the conditions to ``path`` as JSON; an infinite bound becomes null."""
    record = {
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit(),
        "python": platform.python_version(),
        "environment": record_environment().to_json(),
        **figures,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_finite(record), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

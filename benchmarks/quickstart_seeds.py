"""The quickstart with three seeds: accuracy and int8 agreement of each, judged by the bounds it promises.

Run: ``make full``, or ``.venv/bin/python benchmarks/quickstart_seeds.py --json benchmarks/results/quickstart.json``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from record import write_record

from edgeclf.solar.quickstart import quickstart

SEEDS = (0, 1, 2)
MIN_ACCURACY = 0.85
MAX_DROP_POINTS = 1.0
MIN_AGREEMENT = 0.95


def go(seed: int, folder: Path) -> dict[str, Any]:
    """One quickstart: its rows and the seconds it took."""
    begin = time.perf_counter()
    made = quickstart(folder / str(seed), seed=seed)
    fp32 = next(row.accuracy for row in made.rows if "fp32" in row.file)
    rows = [
        {
            **asdict(row),
            "drop_from_fp32_points": 100 * (fp32 - row.accuracy),
            "kept": fp32 >= MIN_ACCURACY
            and 100 * (fp32 - row.accuracy) <= MAX_DROP_POINTS
            and row.agreement >= MIN_AGREEMENT,
        }
        for row in made.rows
    ]
    return {"seed": seed, "seconds": time.perf_counter() - begin, "rows": rows}


def main() -> None:
    """Print a row for each artifact, write them on request, and fail where a bound is not kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    arguments = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in arguments.seeds:
            results.append(go(seed, Path(folder)))
            for row in results[-1]["rows"]:
                print(
                    f"seed {seed}  {row['file']:18} accuracy {row['accuracy']:.4f}  from fp32 "
                    f"{row['drop_from_fp32_points']:+.2f}  same label {row['agreement']:.4f}  "
                    f"{'kept' if row['kept'] else 'NOT KEPT'}",
                    flush=True,
                )
            print(f"seed {seed}  {results[-1]['seconds']:.0f} s", flush=True)
    if arguments.json:
        write_record(
            arguments.json,
            bounds={"accuracy": MIN_ACCURACY, "drop_points": MAX_DROP_POINTS, "agreement": MIN_AGREEMENT},
            results=results,
        )
    if not all(row["kept"] for result in results for row in result["rows"]):
        sys.exit("A bound was not kept; see NOT KEPT above.")


if __name__ == "__main__":
    main()

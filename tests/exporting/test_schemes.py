"""Cheap backbones in every scheme and format: what the table of the reference says of them holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from make_clips import SETTINGS, write_clips

from edgeclf.exporting.export import export
from edgeclf.training.config import load_config
from edgeclf.training.train import train
from edgeclf_device.artifact import read_artifact
from edgeclf_device.errors import EdgeclfError

pytestmark = pytest.mark.tensorflow
TABLE = Path(__file__).parents[2] / "docs" / "reference" / "schemes.md"
QUICK = {
    "cnn": ["image_size=28"],
    "vit_tiny": ["image_size=32", "model.depth=1", "model.width=24"],
    "cnn_lstm": list(SETTINGS),
    "efficientnet_lite0": ["image_size=32", "weights=none", "train.fine_tune_from=all"],
}
SLOW = ("cnn", "vit_tiny", "efficientnet_lite0")


def cells(backbone: str) -> dict[str, str]:
    """A backbone's row of the table, by the kind of file."""
    rows = [line.strip("| ").split(" | ") for line in TABLE.read_text(encoding="utf-8").splitlines() if "|" in line]
    (head,) = (row for row in rows if row[0] == "backbone")
    (row,) = (row for row in rows if row[0] == backbone)
    return dict(zip(head[1:], row[1:], strict=True))


@pytest.mark.parametrize(
    "backbone", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in QUICK]
)
def test_what_the_table_says_of_a_backbone_holds(backbone, run_folder, tmp_path):
    pytest.importorskip("tensorflow")
    stated = cells(backbone)
    assert len(stated) == 10
    data = write_clips(tmp_path / "clips") if backbone == "cnn_lstm" else run_folder.parent / "images"
    overrides = [*QUICK[backbone], f"data={data}", f"backbone={backbone}", "train.epochs=1"]
    run = train(load_config(None, overrides), out=tmp_path / "run")
    for container in ("tflite", "onnx"):
        ours = {kind.split(".")[0]: cell for kind, cell in stated.items() if kind.endswith(f".{container}")}
        works = [scheme for scheme, cell in ours.items() if not cell.startswith("[")]
        bundle = export(run.folder, tmp_path / container, formats=(container,), schemes=works, max_drop=100)
        certificates = {
            entry.scheme: read_artifact(bundle.path(entry)).manifest.certificate for entry in bundle.artifacts
        }
        assert set(certificates) == set(works)
        assert certificates["fp32"].agreement == 1
        assert all(np.isfinite(one.changes.max_error) for one in certificates.values())
        for scheme in set(ours) - set(works):
            with pytest.raises(EdgeclfError, match=scheme):
                export(run.folder, tmp_path / "refused", formats=(container,), schemes=(scheme,), max_drop=100)
            assert not (tmp_path / "refused").exists()

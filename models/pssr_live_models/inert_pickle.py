"""Read pickles without executing anything from them.

A pickle is a program, and Python's own unpickler calls what it names. The small interpreter here
calls nothing and looks nothing up: a name in the pickle stays a name (`Named`), a call becomes a
`Record` of what was to be called, a tensor says where it lies. Names that no learner has are
refused at once.
"""

from __future__ import annotations

import pickletools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, cast

import numpy as np
from numpy.typing import NDArray

from pssr_live.errors import ModelError

__all__ = ["Interpreter", "Named", "Record", "Source", "Storage", "StoredTensor", "refuse"]

_LONGEST_LINE = 1000
_MOST_OPERATIONS = 1 << 20
"""In one pickle. The published learner has 36,000; a file of nothing else would take hours."""

_DTYPES: dict[str, np.dtype[Any]] = {
    "torch FloatStorage": np.dtype("<f4"),
    "torch DoubleStorage": np.dtype("<f8"),
    "torch HalfStorage": np.dtype("<f2"),
    "torch LongStorage": np.dtype("<i8"),
    "torch IntStorage": np.dtype("<i4"),
    "torch ByteStorage": np.dtype("u1"),
}
_UNREAD_STORAGES = {
    f"{kind}Storage"
    for kind in ("BFloat16", "Bool", "Char", "ComplexDouble", "ComplexFloat", "Short")
}
_DICT = "collections OrderedDict"
_GETATTR = "__builtin__ getattr"
_HOOK = "fastai.callbacks.hooks Hook"
_PARAMETER = "torch._utils _rebuild_parameter"
_TENSOR = "torch._utils _rebuild_tensor_v2"
_ALLOWED = {
    *_DTYPES,
    _DICT,
    _GETATTR,
    _PARAMETER,
    _TENSOR,
    "__builtin__ set",
    "_codecs encode",
    "functools partial",
    "numpy dtype",
    "numpy._core.multiarray scalar",
    "numpy.core.multiarray scalar",
    "pathlib PosixPath",
    "pathlib WindowsPath",
    "torch.utils.hooks RemovableHandle",
}
"""Anything but tensors and dicts becomes a record; NumPy's are numbers that callbacks keep."""

_ALLOWED_PACKAGES = ("torch.nn.", "torch.optim.", "fastai.", "utils.")
"""Where a learner's modules, losses, callbacks and transforms come from; ``utils`` is PSSR's own.

They are only ever records here. A list of every one would refuse learners trained with another
loss or callback, for nothing.
"""


@dataclass(frozen=True, slots=True)
class Named:
    """A global that the file names: its module and its name, and nothing else."""

    name: str


@dataclass(slots=True, eq=False)
class Record:
    """An object that the file would have made.

    Attributes
    ----------
    name : str
        Module and name of its class or function.
    args : tuple
        What it would have been called with.
    state : object
        Its attributes, most often a dict.
    """

    name: str
    args: tuple[object, ...]
    state: object = None

    def attributes(self) -> dict[str, object]:
        """Give the attributes by name; empty if the state is none."""
        return cast(dict[str, object], self.state) if isinstance(self.state, dict) else {}


@dataclass(frozen=True, slots=True)
class Storage:
    """Values that tensors share: their name in the file, their dtype and how many there are."""

    key: str
    dtype: np.dtype[Any]
    count: int


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where a tensor lies; `Saved.array` reads it."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def refuse(path: Path, why: str) -> NoReturn:
    """Raise a `ModelError` about this file."""
    raise ModelError(
        f"weights {path}", why, "give a file that fastai wrote, from where you trust"
    ) from None


class Source:
    """Bytes to read a pickle from; a length that lies reserves no memory."""

    def __init__(self, content: NDArray[np.uint8]) -> None:
        self._content = content
        self.position = 0

    def read(self, count: int) -> bytes:
        """Read so many bytes, or those that there are."""
        piece = self._content[self.position : self.position + count].tobytes()
        self.position += len(piece)
        return piece

    def readline(self) -> bytes:
        """Read to the end of the line, or of what a line may be."""
        line, end, _ = self._content[self.position :][:_LONGEST_LINE].tobytes().partition(b"\n")
        self.position += len(line) + len(end)
        return line + end


class Interpreter:
    """Runs one pickle on data of its own: no name is looked up, nothing is called."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, object] = {}
        self.storages: dict[str, Storage] = {}

    def run(self, source: Source) -> object:
        """Run to the pickle's end; give what it leaves."""
        try:
            with warnings.catch_warnings():
                # Of escapes in texts of an operation that is then refused.
                warnings.simplefilter("ignore", DeprecationWarning)
                self._follow(source)
            result: object = self._stack.pop()
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, MemoryError) as error:
            refuse(self._path, f"it is no learner, or a damaged one ({str(error)[:100]})")
        return result

    def _follow(self, source: Source) -> None:
        for done, (code, arg, _) in enumerate(
            pickletools.genops(source)  # type: ignore[arg-type]
        ):
            if done == _MOST_OPERATIONS:
                raise ValueError(f"more than {done} operations")
            if code.name in _CONSTANTS:
                self._stack.append(arg)
            elif (step := _STEPS.get(code.name)) is not None:
                step(self, arg)
            elif code.name not in _IDLE:
                raise ValueError(f"operation {code.name}")

    def _push(self, item: object) -> None:
        self._stack.append(item)

    def _pop(self) -> Any:
        return self._stack.pop()

    def _mark(self) -> None:
        self._marks.append(self._stack)
        self._stack = []

    def _since_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._marks.pop()
        return items

    def _remember(self, place: int | None) -> None:
        self._memo[len(self._memo) if place is None else place] = self._stack[-1]

    def _recall(self, place: int) -> None:
        if place not in self._memo:
            raise ValueError(f"it speaks of a part {place} that it does not have")
        self._stack.append(self._memo[place])

    def _extend(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, list):
            raise TypeError("items for what is no list")
        target.extend(items)

    def _update(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise TypeError("entries for what is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Learners keep the state of callbacks by their class.
            if not isinstance(key, str | int | float | Named):
                raise TypeError(f"a key is a {type(key).__name__}")
            target[key] = value

    def _dict(self, items: list[Any]) -> None:
        self._stack.append({})
        self._update(items)

    def _name(self, arg: str) -> None:
        """Push a global's name, if it is allowed."""
        module, _, attribute = arg.partition(" ")
        known = arg in _ALLOWED or (
            f"{module}.".startswith(_ALLOWED_PACKAGES) and attribute.isidentifier()
        )
        if not known and module == "torch" and attribute in _UNREAD_STORAGES:
            refuse(self._path, f"it holds values of torch.{attribute}, which no learner has")
        if not known:
            raise ModelError(
                f"weights {self._path}",
                f"it names {arg[:120].replace(' ', '.')!r}, which no learner needs and which could "
                "run code; nothing was run",
                "do not use this file; get it again from where you trust",
            )
        self._stack.append(Named(arg))

    def _call(self) -> None:
        """Take down what was to be called, with what."""
        args, called = self._stack.pop(), self._stack.pop()
        if not isinstance(called, Named) or not isinstance(args, tuple):
            refuse(self._path, "it calls what is not a known class or function")
        self._stack.append(self._made(called.name, args))

    def _made(self, name: str, args: tuple[Any, ...]) -> object:
        if name == _TENSOR:
            storage, offset, size, stride, *_ = args
            numbers = (offset, *size, *stride)
            if not isinstance(storage, Storage) or any(type(n) is not int for n in numbers):
                raise TypeError("a tensor without storage, or with a shape that is no number")
            return StoredTensor(storage, offset, tuple(size), tuple(stride))
        if name == _PARAMETER:
            return args[0]
        if name == _DICT:
            if args:
                raise TypeError("an ordered dict with entries from elsewhere")
            return {}  # its entries follow, as for any dict
        if name == _GETATTR and not (
            len(args) == 2 and isinstance(args[0], Record) and args[0].name == _HOOK
        ):
            refuse(self._path, "it names getattr for something else than a learner's hooks")
        return Record(name, args)

    def _build(self) -> None:
        """Keep an object's attributes."""
        state = self._stack.pop()
        target = self._stack[-1]
        if isinstance(target, Record):
            target.state = state
        elif not isinstance(target, dict):  # an ordered dict's attributes are of no use here
            raise TypeError("attributes for what has none")

    def _persistent(self) -> None:
        """Push a storage, or the class of a module that was saved with its source text."""
        kind, what, *rest = self._stack.pop()
        if kind == "module" and isinstance(what, Named):
            self._stack.append(what)
            return
        key, _, count, *view = rest  # a zip archive's storages have no views
        dtype = _DTYPES.get(what.name) if isinstance(what, Named) else None
        if (
            kind != "storage"
            or dtype is None
            or view not in ([], [None])
            or not isinstance(key, str)
        ):
            raise TypeError("an unknown kind of storage")
        if type(count) is not int or count < 0:
            raise ValueError("a storage without a size")
        storage = Storage(key, dtype, count)
        if self.storages.setdefault(key, storage) != storage:
            raise ValueError("two storages with one name")
        self._stack.append(storage)


_CONSTANTS = {
    *("BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1"),
    *("BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "UNICODE"),
}
"""Operations that push their argument."""

_IDLE = {"PROTO", "FRAME", "STOP"}

_STEPS: dict[str, Callable[[Interpreter, Any], None]] = {
    "MARK": lambda run, _: run._mark(),
    "NONE": lambda run, _: run._push(None),
    "NEWTRUE": lambda run, _: run._push(True),
    "NEWFALSE": lambda run, _: run._push(False),
    "EMPTY_DICT": lambda run, _: run._push({}),
    "EMPTY_LIST": lambda run, _: run._push([]),
    "EMPTY_TUPLE": lambda run, _: run._push(()),
    "TUPLE": lambda run, _: run._push(tuple(run._since_mark())),
    "TUPLE1": lambda run, _: run._push((run._pop(),)),
    "TUPLE2": lambda run, _: run._push((run._pop(), run._pop())[::-1]),
    "TUPLE3": lambda run, _: run._push((run._pop(), run._pop(), run._pop())[::-1]),
    "APPEND": lambda run, _: run._extend([run._pop()]),
    "APPENDS": lambda run, _: run._extend(run._since_mark()),
    "LIST": lambda run, _: run._push(run._since_mark()),
    "DICT": lambda run, _: run._dict(run._since_mark()),
    "SETITEM": lambda run, _: run._update([run._pop(), run._pop()][::-1]),
    "SETITEMS": lambda run, _: run._update(run._since_mark()),
    "PUT": lambda run, place: run._remember(place),
    "BINPUT": lambda run, place: run._remember(place),
    "LONG_BINPUT": lambda run, place: run._remember(place),
    "MEMOIZE": lambda run, _: run._remember(None),
    "GET": lambda run, place: run._recall(place),
    "BINGET": lambda run, place: run._recall(place),
    "LONG_BINGET": lambda run, place: run._recall(place),
    "GLOBAL": lambda run, name: run._name(name),
    "INST": lambda run, name: run._name(name),
    "STACK_GLOBAL": lambda run, _: run._name(" ".join((run._pop(), run._pop())[::-1])),
    "REDUCE": lambda run, _: run._call(),
    "NEWOBJ": lambda run, _: run._call(),
    "BUILD": lambda run, _: run._build(),
    "BINPERSID": lambda run, _: run._persistent(),
}

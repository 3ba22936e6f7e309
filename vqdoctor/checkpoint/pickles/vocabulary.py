"""The meaning of the names in a torch checkpoint: tensors and plain containers; all others stay inert."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from vqdoctor.checkpoint.dtypes import DTYPES
from vqdoctor.checkpoint.files import TRUNCATED, Damaged, printable
from vqdoctor.checkpoint.pickles.danger import could_execute
from vqdoctor.checkpoint.pickles.known import PLAIN
from vqdoctor.checkpoint.pickles.machine import Machine
from vqdoctor.checkpoint.pickles.tensors import (
    SAVE_AGAIN,
    TENSOR_MEANINGS,
    UNTYPED,
    Meaning,
    Storage,
    integers,
)
from vqdoctor.checkpoint.records import MemoryRecord, Record
from vqdoctor.checkpoint.tensor import MAX_DIMENSIONS, LazyTensor
from vqdoctor.checkpoint.tree import Deferred, Global, Inert

_STORAGES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16", "LongStorage": "int64", "IntStorage": "int32",
    "ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8", "BoolStorage": "bool",
    "ComplexDoubleStorage": "complex128", "ComplexFloatStorage": "complex64",
}  # fmt: skip
_NUMPY_CODES = {dtype.stored: dtype for dtype in DTYPES.values() if dtype.widen is None} | {
    "b1": DTYPES["bool"]
}
_ENCODE_STEP = 64
MAX_FOREIGN = 1000
MAX_NAME = 200
_SKIPPED = "tensors are not read and were left out"


@dataclass
class NumpyType:
    """A numpy dtype under construction: the byte order comes with its BUILD."""

    code: str
    big_endian: bool = False


@dataclass(kw_only=True)
class TorchVocabulary:
    """Answers a pickle machine for one torch checkpoint.

    Attributes:
        path: the file, for error messages.
        find_record: returns the record of a storage by its key.
        big_endian: whether storages have the highest byte first.
        foreign: every name outside of plain containers and tensors, in order of appearance, and
            whether it could execute something.
        notes: note to how often it applies.
    """

    path: Path
    find_record: Callable[[str], Record]
    big_endian: bool = False
    foreign: dict[str, bool] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)
    storages: dict[str, tuple[Global, int, Storage | Inert]] = field(default_factory=dict)
    _noted: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})

    @property
    def harmless(self) -> tuple[str, ...]:
        """Foreign names that cannot execute anything by themselves."""
        return tuple(shown for shown, dangerous in self.foreign.items() if not dangerous)

    @property
    def dangerous(self) -> tuple[str, ...]:
        """Foreign names that could execute something in an ordinary unpickler."""
        return tuple(shown for shown, dangerous in self.foreign.items() if dangerous)

    def named(self, module: str, name: str) -> Global:
        """Return a fresh stand-in for a global, and take note of it if it is foreign."""
        found = Global(module, name)
        if str(found) not in PLAIN:
            dangerous = could_execute(found)
            # A crowd of names must not fill the memory, nor hide the one that matters.
            if self._noted[dangerous] < MAX_FOREIGN:
                before = len(self.foreign)
                self.foreign[printable(str(found)[:MAX_NAME])] = dangerous
                self._noted[dangerous] += len(self.foreign) - before
        return found

    def call(self, machine: Machine, function: Global, args: tuple[Any, ...]) -> Any:
        """Return the meaning of a call, or an `Inert` with its arguments."""
        meaning = _MEANINGS.get(str(function))
        if meaning is None:
            # What torch's own classes make of their arguments is no place where a tensor may be kept.
            kept = () if str(function) in PLAIN else args
            return Inert(function.module, function.name, kept)
        try:
            return meaning(self, machine, *args)
        except (TypeError, ValueError, OverflowError):
            what = f"corrupt: its pickle calls {printable(str(function))} with arguments that do not fit"
            raise Damaged(what, TRUNCATED) from None

    def persistent(self, pid: object) -> Any:
        """Return the storage that a persistent id names.

        Raises:
            Damaged: if its record is missing or shorter than the id says.
        """
        match pid:
            case ("storage", Global() as kind, str(key), _, int(numel)) if numel >= 0:
                # Looked up once: thousands of tensors may share one storage.
                if key not in self.storages:
                    self.storages[key] = kind, numel, self._storage(kind, key, numel)
                known_kind, known_numel, storage = self.storages[key]
                if (kind, numel) != (known_kind, known_numel):
                    what = f"forged: its pickle gives the record data/{printable(key)} two types or sizes"
                    raise Damaged(what, SAVE_AGAIN)
                return storage
            case (str(word), *_) if word != "storage":
                return Inert("torch", "persistent_id", (pid,))
        raise Damaged("forged: its pickle names a storage in no valid way", SAVE_AGAIN)

    def _storage(self, kind: Global, key: str, numel: int) -> Storage | Inert:
        dtype = UNTYPED if kind.name == "UntypedStorage" else DTYPES.get(_STORAGES.get(kind.name, ""))
        if dtype is None:
            return Inert(kind.module, kind.name)
        record = self.find_record(key)
        if numel * dtype.itemsize > record.size:
            raise Damaged(f"corrupt: the record data/{printable(key)} is cut short", TRUNCATED)
        return Storage(key=key, dtype=dtype, numel=numel, record=record)

    def build(self, target: object, state: object) -> None:
        """Give a numpy array its values and a numpy dtype its byte order.

        The state of a dict are attributes, beside its items, and is dropped.

        Raises:
            Damaged: if the state would change a tensor, a storage, or anything else that has its value.
        """
        match target, state:
            case NumpyType(), (_, str(order), *_):
                target.big_endian = order == ">"
            case Deferred(), (_, shape, dtype, fortran, data):
                target.value = _numpy_array(self, dtype, shape, data, fortran=fortran is True)
            case ((NumpyType() | Deferred() | dict()), _):
                pass
            case _:
                raise Damaged("forged: its pickle changes a value after it was made", SAVE_AGAIN)

    def key(self, key: object) -> str | None:
        """No object means anything as a key."""
        return None

    def skip(self, what: str, args: tuple[Any, ...]) -> Inert:
        """Leave a tensor out, with a note."""
        note = f"{what} {_SKIPPED}"
        self.notes[note] = self.notes.get(note, 0) + 1
        return Inert("torch", "Tensor", args)


def _device(_v: TorchVocabulary, _m: Machine, kind: object, index: object = None) -> str:
    if type(kind) is not str or type(index) not in (int, type(None)):
        raise TypeError
    return kind if index is None else f"{kind}:{index}"


# Plain containers


def _dict(_v: TorchVocabulary, m: Machine, items: Any = ()) -> dict[Any, Any]:
    made: dict[Any, Any] = {}
    m.spend(len(items))
    pairs = items.items() if isinstance(items, dict) else items
    if any(not isinstance(pair, tuple | list) or len(pair) != 2 for pair in pairs):
        raise TypeError
    m.set_items(made, [part for pair in pairs for part in pair])
    return made


def _list(_v: TorchVocabulary, m: Machine, items: Any = ()) -> list[Any]:
    m.spend(len(items))
    if not isinstance(items, tuple | list):
        raise TypeError
    return list(items)


def _encode(_v: TorchVocabulary, m: Machine, text: object, encoding: object = "utf-8") -> bytes:
    """Bytes, as pickle protocol 2 writes them."""
    if type(text) is not str or encoding not in ("latin1", "latin-1", "utf-8", "ascii"):
        raise TypeError
    m.spend(len(text) // _ENCODE_STEP)
    return text.encode(encoding)


def _bytes(_v: TorchVocabulary, _m: Machine, data: object = b"", *_: object) -> Any:
    # bytes(10**12) would be a bomb; a str with its encoding is how protocol 2 writes a bytearray.
    return data if type(data) is bytes else Inert("builtins", "bytes")


# numpy and paths: torch's own safe loader refuses these, so they count as foreign


def _numpy_type(_v: TorchVocabulary, _m: Machine, code: object, *_: object) -> NumpyType:
    if type(code) is not str:
        raise TypeError
    return NumpyType(code.lstrip("<>|="), code.startswith(">"))


def _numpy_scalar(v: TorchVocabulary, _m: Machine, dtype: object, data: object = b"") -> Any:
    array = _numpy_array(v, dtype, (), data, fortran=False)
    return array.read().item() if isinstance(array, LazyTensor) else array


def _numpy_array(
    v: TorchVocabulary, dtype: Any, shape: Any, data: Any, *, fortran: bool
) -> LazyTensor | Inert:
    """Return an array whose bytes are in the pickle; of strings, objects and dates only the name."""
    element = _NUMPY_CODES.get(dtype.code) if isinstance(dtype, NumpyType) else None
    if element is None or type(data) is not bytes:
        return Inert("numpy", "ndarray")
    sizes = integers(shape)
    if (
        len(sizes) > MAX_DIMENSIONS
        or min(sizes, default=0) < 0
        or prod(sizes) * element.itemsize != len(data)
    ):
        raise Damaged("forged: the shape of a numpy array does not fit its bytes")
    strides = [prod(sizes[:i] if fortran else sizes[i + 1 :]) for i in range(len(sizes))]
    record = MemoryRecord(data)
    return LazyTensor(
        path=v.path,
        shape=sizes,
        strides=tuple(strides),
        element=element,
        big_endian=dtype.big_endian,
        record=record,
        storage_id=("pickle", id(record)),
    )


def _path(_v: TorchVocabulary, m: Machine, *parts: Any) -> str:
    if any(type(part) is not str for part in parts):
        raise TypeError
    m.spend(sum(map(len, parts)) // _ENCODE_STEP)
    first, rest = parts[:1], parts[1:]
    return "/".join((*(part.rstrip("/") if rest else part for part in first), *rest))


_MEANINGS: dict[str, Meaning] = TENSOR_MEANINGS | {
    name: meaning
    for names, meaning in (
        ("torch.Size", lambda _v, _m, values=(): integers(values)),
        ("torch.device", _device),
        ("collections.OrderedDict collections.Counter builtins.dict __builtin__.dict", _dict),
        ("collections.defaultdict", lambda v, m, _factory=None, items=(): _dict(v, m, items)),
        ("builtins.set builtins.frozenset builtins.list", _list),
        ("__builtin__.set __builtin__.frozenset __builtin__.list", _list),
        ("builtins.tuple __builtin__.tuple", lambda v, m, items=(): tuple(_list(v, m, items))),
        ("_codecs.encode", _encode),
        ("builtins.bytes __builtin__.bytes builtins.bytearray __builtin__.bytearray", _bytes),
        ("numpy.dtype", _numpy_type),
        ("numpy.core.multiarray.scalar numpy._core.multiarray.scalar", _numpy_scalar),
        ("numpy.core.multiarray._reconstruct numpy._core.multiarray._reconstruct",
         lambda *_: Deferred(Inert("numpy", "ndarray"))),
        ("pathlib.PosixPath pathlib.WindowsPath pathlib.Path "
         "pathlib.PurePosixPath pathlib.PureWindowsPath", _path),
        ("pathlib._local.PosixPath pathlib._local.WindowsPath pathlib._local.Path "
         "pathlib._local.PurePosixPath pathlib._local.PureWindowsPath", _path),
    )
    for name in names.split()
}  # fmt: skip
"""All calls that a pickle can make, by name, and their inert meaning. Every other name stays inert."""

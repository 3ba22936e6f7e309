"""The calls of a pickle that make tensors: each gives the tensor that torch would make, or refuses.

torch lets a file change a tensor after it is made: a state sets its attributes, `data` among them. To pass
over such a state would show other values than torch loads, and a healthy codebook could hide a sick one.

References:
    torch/_utils.py (`_rebuild_*`, `_set_obj_state`),
    torch/_tensor.py (`_rebuild_from_type_v2`, `__setstate__`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from vqdoctor.checkpoint.dtypes import DTYPES, DType
from vqdoctor.checkpoint.files import TRUNCATED, Damaged, printable
from vqdoctor.checkpoint.pickles.known import PARAMETERS, STORAGES, TENSORS
from vqdoctor.checkpoint.pickles.machine import Machine
from vqdoctor.checkpoint.pickles.wrapped import local_of_whole
from vqdoctor.checkpoint.records import Record
from vqdoctor.checkpoint.tensor import LazyTensor
from vqdoctor.checkpoint.tree import Deferred, Global, Inert
from vqdoctor.core.frozen import frozen

if TYPE_CHECKING:
    from vqdoctor.checkpoint.pickles.vocabulary import TorchVocabulary

Meaning = Callable[..., Any]

UNTYPED = DTYPES["uint8"]
SAVE_AGAIN = (
    "do not trust this file; its author can save the weights alone: torch.save(model.state_dict(), path)"
)
TENSOR_STEPS = 60
"""The extra price of a tensor, which every layout looks at; it takes 66 steps to build."""
_VALUES = frozenset(
    {"data", "real", "imag", "grad", "_grad", "H", "T", "mH", "mT", "names", "name", "volatile"}
)
"""Attributes of a tensor that torch computes or that give it other values when they are set."""


@frozen
class Storage:
    """A storage that tensors lie in.

    Attributes:
        key: its name in the file.
        dtype: its element type; bytes where it is untyped.
        numel: its length in elements: torch takes no more of the record than that.
        record: its bytes.
    """

    key: str
    dtype: DType
    numel: int
    record: Record


def _tensor_v1(v: TorchVocabulary, m: Machine, storage: object, *args: object) -> LazyTensor | Inert:
    return _rebuild(v, m, storage, args, None)


def _tensor_v2(v: TorchVocabulary, m: Machine, storage: object, *args: object) -> LazyTensor | Inert:
    _refuse_metadata(args[5] if len(args) > 5 else None)
    return _rebuild(v, m, storage, args, None)


def _tensor_v3(v: TorchVocabulary, m: Machine, storage: object, *args: object) -> LazyTensor | Inert:
    _refuse_metadata(args[6] if len(args) > 6 else None)
    dtype = args[5] if len(args) > 5 else None
    name = dtype.name if isinstance(dtype, Global) else "untyped"
    if name not in DTYPES:
        return v.skip(printable(name), ())
    return _rebuild(v, m, storage, args, DTYPES[name])


def _skip(what: str, v: TorchVocabulary, _m: Machine, *args: object) -> Inert:
    return v.skip(what, args)


def _rebuild(
    v: TorchVocabulary, m: Machine, storage: object, args: tuple[object, ...], dtype: DType | None
) -> LazyTensor | Inert:
    m.spend(TENSOR_STEPS)
    offset, size, stride = args[:3]
    if isinstance(storage, Inert):
        return v.skip(storage.name.removesuffix("Storage"), ())
    if not isinstance(storage, Storage):
        raise TypeError
    element = dtype or storage.dtype
    if v.big_endian and element.itemsize != storage.dtype.itemsize:
        raise Damaged("holds a tensor of another type than its storage, in big-endian order", SAVE_AGAIN)
    tensor = LazyTensor(
        path=v.path,
        shape=integers(size),
        strides=integers(stride),
        offset=integers((offset,))[0],
        element=element,
        big_endian=v.big_endian,
        record=storage.record,
        storage_id=storage.key,
    )
    end = (tensor.offset + tensor.span) * tensor.element.itemsize if tensor.numel else 0
    if end > storage.numel * storage.dtype.itemsize:
        raise Damaged("forged: a tensor's shape asks for more than its storage holds")
    return tensor


def _refuse_state(state: object) -> None:
    """Refuse a state that gives a tensor other values than its storage: torch sets each as an attribute.

    Raises:
        Damaged: if it could; other attributes, such as a mark of the user, change nothing.
    """
    parts = state if isinstance(state, tuple) else (state,)
    for part in parts:
        if part is None or part == {}:
            continue
        names = part if isinstance(part, dict) else (None,)
        if any(type(name) is not str or name in _VALUES or name.startswith("__") for name in names):
            raise Damaged("forged: its pickle gives a tensor other values after it was made", SAVE_AGAIN)


def _refuse_metadata(metadata: object) -> None:
    """Refuse a tensor that torch keeps negated or conjugated: its stored bytes are not its values.

    Raises:
        Damaged: if it is one.
    """
    if metadata is not None and metadata != {}:
        raise Damaged("holds a tensor that torch keeps negated or conjugated", "save a clone of it")


def _parameter(
    _v: TorchVocabulary, _m: Machine, data: object = None, _grad: object = True, _hooks: object = None,
    state: object = None,
) -> object:  # fmt: skip
    _refuse_state(state)
    if isinstance(data, Inert):
        return data
    if not isinstance(data, LazyTensor):
        raise TypeError
    return replace(data, is_parameter=True)


def _moved(_v: TorchVocabulary, _m: Machine, data: object, dtype: object = None, *_: object) -> object:
    """A tensor of another device; torch casts it to the type that is named."""
    tensor = data.value if isinstance(data, Deferred) else data
    if not (isinstance(tensor, LazyTensor) and isinstance(dtype, Global)):
        return data
    # numpy has no bfloat16, so torch writes one as a float32 of the same value.
    if (tensor.element.name, dtype.name) not in (("float32", "bfloat16"), (dtype.name, dtype.name)):
        raise Damaged("holds a tensor that is stored in another type than its own", "save it from the CPU")
    return data


def _made_of_numbers(_v: TorchVocabulary, _m: Machine, *_: object) -> object:
    raise Damaged("holds a tensor that is made of a list or a size, and not of a storage", SAVE_AGAIN)


def integers(values: object) -> tuple[int, ...]:
    """Return a shape, or strides, as a tuple of integers that fit into 64 bits.

    Raises:
        Damaged: if they are something else.
    """
    whole = isinstance(values, tuple | list) and all(type(n) is int for n in values)
    if not isinstance(values, tuple | list) or not whole or any(n.bit_length() > 63 for n in values):
        raise Damaged("corrupt: the shape of a tensor is not a tuple of integers", TRUNCATED)
    return tuple(values)


def _from_type(
    _v: TorchVocabulary, m: Machine, function: object, _kind: object, args: object, state: object = None
) -> object:
    # A call within a call within a call would recurse as deep as the file likes.
    if not isinstance(function, Global) or function.name.endswith("_rebuild_from_type_v2"):
        raise TypeError
    if (local := local_of_whole(function, args, state)) is not None:
        return local
    _refuse_state(state)
    made = m.call(function, args)
    if not isinstance(made, LazyTensor | Inert):
        raise TypeError
    return made


TENSOR_MEANINGS: dict[str, Meaning] = {
    name: meaning
    for names, meaning in (
        ("torch._utils._rebuild_tensor", _tensor_v1),
        ("torch._utils._rebuild_tensor_v2", _tensor_v2),
        ("torch._utils._rebuild_tensor_v3", _tensor_v3),
        ("torch._utils._rebuild_parameter torch._utils._rebuild_parameter_with_state", _parameter),
        (" ".join(PARAMETERS), _parameter),
        (" ".join(TENSORS | STORAGES), _made_of_numbers),
        ("torch._tensor._rebuild_from_type_v2", _from_type),
        ("torch._utils._rebuild_device_tensor_from_cpu_tensor torch._utils._rebuild_xla_tensor "
         "torch._utils._rebuild_device_tensor_from_numpy", _moved),
        ("torch.serialization._get_layout", lambda _v, _m, name, *_: name),
        # A sparse tensor's indices and values stay reachable below it.
        ("torch._utils._rebuild_sparse_tensor", partial(_skip, "sparse")),
        ("torch._utils._rebuild_sparse_csr_tensor", partial(_skip, "sparse")),
        ("torch._utils._rebuild_qtensor", partial(_skip, "quantized")),
        ("torch._utils._rebuild_meta_tensor_no_storage", partial(_skip, "meta")),
        ("torch._utils._rebuild_nested_tensor", partial(_skip, "nested")),
        ("torch._utils._rebuild_wrapper_subclass", partial(_skip, "wrapped")),
    )
    for name in names.split()
}  # fmt: skip
"""Every call that makes a tensor, by name."""

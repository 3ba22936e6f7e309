"""Checkpoints with every way to store a tensor, honest and forged, to compare a reader with torch's own.

`forged_file(seed)` returns one file. Forged is what torch resolves in a way of its own: a state given to a
tensor after it was made, a storage under two types or sizes, records whose names differ only in case.
"""

from __future__ import annotations

import io
import random
import struct
import zipfile

import numpy as np

_TYPES = {"FloatStorage": 4, "DoubleStorage": 8, "LongStorage": 8, "HalfStorage": 2, "ByteStorage": 1}
_NAMES = {
    "FloatStorage": "float32", "DoubleStorage": "float64", "LongStorage": "int64", "HalfStorage": "float16",
}  # fmt: skip
_ATTRIBUTES = ("imag", "data", "real", "mark", "grad", "__class__", "requires_grad")


def text(value: str) -> bytes:
    """Return the opcode of a string."""
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value: int) -> bytes:
    """Return the opcode of an integer."""
    return b"J" + struct.pack("<i", value)


def numbers(values: tuple[int, ...]) -> bytes:
    """Return the opcodes of a tuple of integers."""
    return b"(" + b"".join(map(number, values)) + b"t"


def named(name: str) -> bytes:
    """Return the opcode of a global."""
    module, _, attribute = name.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


def call(name: str, *arguments: bytes, opcode: bytes = b"R") -> bytes:
    """Return the opcodes of a call."""
    return named(name) + b"(" + b"".join(arguments) + b"t" + opcode


HOOKS = call("collections.OrderedDict")


class Forger:
    """Writes one file of random tensors; `rate` is how often a step is forged."""

    def __init__(self, seed: int, rate: float = 0.04) -> None:
        self.random = random.Random(seed)
        self.rate = rate
        self.records: dict[str, bytes] = {}
        self.types: dict[str, tuple[str, int]] = {}

    def forged(self) -> bool:
        """Return whether this step is to be forged."""
        return self.random.random() < self.rate

    def storage(self) -> tuple[bytes, int, str]:
        """Return a persistent id, its length in elements and its type, with the record behind it."""
        if self.types and self.random.random() < 0.3:
            key = self.random.choice(list(self.types))
        else:
            key = str(len(self.types))
            kind, numel = self.random.choice(list(_TYPES)), self.random.randint(1, 24)
            self.types[key] = kind, numel
            values = np.random.default_rng(len(self.types)).integers(1, 100, numel * 8)
            dtype = {"FloatStorage": "f4", "DoubleStorage": "f8", "LongStorage": "i8", "HalfStorage": "f2"}
            self.records[f"data/{key}"] = values[:numel].astype(dtype.get(kind, "u1")).tobytes()
        kind, numel = self.types[key]
        shown_kind, shown_numel = kind, numel
        if self.forged():
            shown_kind = self.random.choice([*_TYPES, "UntypedStorage"])
        if self.forged():
            shown_numel = self.random.randint(0, 30)
        module = "torch.storage" if shown_kind == "UntypedStorage" else "torch"
        shown_key = number(int(key)) if self.forged() else text(key)
        parts = text("storage"), named(f"{module}.{shown_kind}"), shown_key, text("cpu"), number(shown_numel)
        return b"(" + b"".join(parts) + b"tQ", shown_numel, shown_kind

    def tensor(self) -> bytes:
        """Return the opcodes of a tensor in one of torch's forms."""
        pid, numel, kind = self.storage()
        size = (max(1, numel),) if self.random.random() < 0.5 else (max(1, numel // 2), 2 if numel > 1 else 1)
        if self.forged():
            size = (numel + self.random.randint(0, 6),)
        offset = self.random.randint(0, 3) if self.forged() else 0
        strides = (1,) if len(size) == 1 else (size[1], 1)
        if self.forged():
            strides = tuple(reversed(strides))
        where = number(offset), numbers(size), numbers(strides)
        flag, metadata = b"\x89", b""
        if self.forged():
            sign = text(self.random.choice(("neg", "conj"))) + b"\x88s"
            metadata = b"}" + (sign if self.random.random() < 0.5 else b"")
        version = self.random.randint(1, 6)
        if version == 1:
            made = call("torch._utils._rebuild_tensor", pid, *where)
        elif version == 2:
            dtype = _NAMES.get(kind, "uint8")
            if self.forged():
                dtype = self.random.choice(("float32", "int64", "float64", "int8", "bfloat16"))
            made = call(
                "torch._utils._rebuild_tensor_v3", pid, *where, flag, HOOKS, named(f"torch.{dtype}"), metadata
            )
        else:
            made = call("torch._utils._rebuild_tensor_v2", pid, *where, flag, HOOKS, metadata)
        return self.wrapped(made)

    def wrapped(self, made: bytes) -> bytes:
        """Return a tensor as a parameter or a subclass, or with a state of its own."""
        how = self.random.randint(0, 11)
        if how == 0:
            made = call("torch._utils._rebuild_parameter", made, b"\x89", HOOKS)
        elif how == 1:
            name = "torch._utils._rebuild_parameter_with_state"
            made = call(name, made, b"\x89", HOOKS, self.state())
        elif how == 2:
            function = named("torch._utils._rebuild_parameter")
            arguments = b"(" + made + b"\x89" + HOOKS + b"t"
            kind = named("torch.nn.parameter.Parameter")
            made = call("torch._tensor._rebuild_from_type_v2", function, kind, arguments, self.state())
        elif how == 3:
            opcode = self.random.choice((b"R", b"\x81"))
            made = call("torch.nn.parameter.Parameter", made, b"\x89", opcode=opcode)
        elif how == 4 and self.forged():
            made = call(self.random.choice(("torch.Tensor", "torch.FloatTensor")), b"](" + number(3) + b"e")
        elif how == 5 and self.forged():
            name = "torch._utils._rebuild_device_tensor_from_cpu_tensor"
            made = call(name, made, named("torch.int8"), text("cpu"), b"\x89")
        if self.forged():
            other, numel, _ = self.storage()
            state = b"(" + other + number(0) + numbers((max(1, numel),)) + numbers((1,)) + b"t"
            made += self.random.choice((state, self.state())) + b"b"
        return made

    def state(self) -> bytes:
        """Return the state of a tensor: none, a mark, or one that gives it other values."""
        if not self.rate or self.random.random() < 0.75:
            return self.random.choice((b"N", b"}", b"}" + text("mark") + number(1) + b"s"))
        pid, numel, _ = self.storage()
        where = number(0), numbers((max(1, numel),)), numbers((1,))
        other = call("torch._utils._rebuild_tensor_v2", pid, *where, b"\x89", HOOKS)
        attribute = b"}" + text(self.random.choice(_ATTRIBUTES)) + other + b"s"
        return attribute if self.random.random() < 0.7 else b"(N" + attribute + b"t"

    def tree(self, depth: int = 0) -> bytes:
        """Return the opcodes of a container of tensors and of more containers."""
        kind = self.random.randint(0, 5)
        deeper = [depth < 2 and self.random.random() < 0.3 for _ in range(2)]
        items = [self.tree(depth + 1) if deep else self.tensor() for deep in deeper]
        if kind == 0:
            return b"](" + b"".join(items) + b"e"
        if kind == 1:
            return b"(" + b"".join(items) + b"t"
        pairs = b"".join(self.key(i) + item for i, item in enumerate(items))
        if kind == 2 and self.forged():
            listed = b"](" + text("a") + items[0] + b"\x86e"
            return call("collections.OrderedDict", listed, opcode=self.random.choice((b"R", b"\x81")))
        opening = HOOKS if kind == 3 else b"}"
        made = opening + b"(" + pairs + b"u"
        return made + b"}" + text("_metadata") + b"}sb" if kind == 3 and self.random.random() < 0.5 else made

    def key(self, i: int) -> bytes:
        """Return a key, now and then one that torch takes for the one before."""
        if self.forged():
            return self.random.choice((number(1), b"\x88", b"(" + number(1) + text("a") + b"t", text("k0")))
        return text(f"k{i}")

    def file(self) -> bytes:
        """Return the whole zip file."""
        data = b"\x80\x02" + self.tree() + b"."
        records = {"data.pkl": data, "byteorder": b"little", "version": b"3\n", **self.records}
        doubles: dict[str, bytes] = {}
        if self.forged():
            name = self.random.choice(list(records))
            doubles[name.upper()] = records[name][::-1] if name.startswith("data/") else b"big"
        if self.forged():
            records["byteorder"] = self.random.choice((b"big", b"BIG", b"little "))
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            shuffled = list((records | doubles).items())
            self.random.shuffle(shuffled)
            for name, content in shuffled:
                archive.writestr(f"archive/{name}", content)
        return out.getvalue()


def forged_file(seed: int, rate: float = 0.04) -> bytes:
    """Return one file, the same for the same seed."""
    return Forger(seed, rate).file()

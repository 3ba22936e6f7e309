"""A pickle machine that builds values and runs nothing.

It follows the opcodes of `pickletools` over bytes in memory, with the same results as `pickle` for
plain values. Where `pickle` would import or call something, it asks its `Vocabulary`, which
answers from a fixed list or with an inert stand-in. Every opcode costs one step of a budget, and
whoever copies pays by length: so a small file cannot ask for much memory or time.

One story: every opcode, and the machine that they drive.
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable
from typing import Any, Protocol

from vqdoctor.checkpoint.files import TRUNCATED, Damaged
from vqdoctor.checkpoint.tree import Global, Inert

MAX_STEPS = 5_000_000
MAX_PROTOCOL = 5
MAX_KEY_LENGTH = 1024
MAX_KEY_BITS = 64


class Vocabulary(Protocol):
    """What names and calls in a pickle mean."""

    def named(self, module: str, name: str) -> Global:
        """Return a fresh stand-in for a global, and take note of it."""

    def call(self, machine: Machine, function: Global, args: tuple[Any, ...]) -> Any:
        """Return what calling `function` means, or an `Inert`."""

    def persistent(self, pid: object) -> Any:
        """Return what a persistent id means, or an `Inert`."""

    def build(self, target: object, state: object) -> None:
        """Give its state to something that this vocabulary made; states of no use are dropped."""


_U1, _U2, _U4, _U8 = (struct.Struct(f"<{code}") for code in "BHIQ")
_I4, _F8 = struct.Struct("<i"), struct.Struct(">d")

Handler = Callable[["Machine"], None]
_HANDLERS: list[Handler | None] = [None] * 256


def _on(*opcodes: bytes) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        for opcode in opcodes:
            _HANDLERS[opcode[0]] = handler
        return handler

    return register


def unpickle(data: bytes, vocabulary: Vocabulary) -> Any:
    """Return what the pickle builds, with inert stand-ins for all foreign objects.

    Raises:
        Damaged: if it is cut, malformed, or larger than the budget.
    """
    return Machine(data, vocabulary).run()


class Machine:
    """One run over one pickle."""

    def __init__(self, data: bytes, vocabulary: Vocabulary) -> None:
        self._data = data
        self._at = 0
        self._steps = MAX_STEPS
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []
        # A dict, not an array: LONG_BINPUT 4294967295 would make an array of that length.
        self._memo: dict[int, Any] = {}
        self._vocabulary = vocabulary
        self._odd_keys = 0

    def run(self) -> Any:
        """Follow the opcodes up to STOP and return the value on top."""
        data = self._data
        stop = b"."[0]
        try:
            while True:
                self._steps -= 1
                if self._steps < 0:
                    self.spend(1)
                opcode = data[self._at]
                self._at += 1
                if opcode == stop:
                    return self._stack.pop()
                handler = _HANDLERS[opcode]
                if handler is None:
                    raise Damaged(f"corrupt: its pickle has an unknown opcode (0x{opcode:02x})", TRUNCATED)
                handler(self)
        except (IndexError, struct.error):
            raise Damaged(
                "corrupt: its pickle ends too early or takes what is not there", TRUNCATED
            ) from None
        except KeyError:
            raise Damaged("corrupt: its pickle refers to what it never stored", TRUNCATED) from None

    def spend(self, steps: int) -> None:
        """Pay for work that grows with a length.

        Raises:
            Damaged: if the budget is spent.
        """
        self._steps -= steps
        if self._steps < 0:
            raise Damaged(
                f"its pickle takes more than {MAX_STEPS:,} steps to read",
                "save the weights alone: torch.save(model.state_dict(), path)",
            )

    # Reading arguments

    def _take(self, size: int) -> bytes:
        end = self._at + size
        if size < 0 or end > len(self._data):
            raise IndexError
        piece = self._data[self._at : end]
        self._at = end
        return piece

    def _number(self, layout: struct.Struct) -> Any:
        (value,) = layout.unpack_from(self._data, self._at)
        self._at += layout.size
        return value

    def _line(self) -> bytes:
        end = self._data.find(b"\n", self._at)
        if end < 0:
            raise IndexError
        line = self._data[self._at : end]
        self._at = end + 1
        return line

    # The stack

    def _pop_mark(self) -> list[Any]:
        items = self._stack
        self._stack = self._marked.pop()
        return items

    def call(self, function: object, args: object) -> Any:
        """Return what calling `function` means; never calls anything that the file names."""
        args = args if isinstance(args, tuple) else (args,)
        self.spend(len(args))
        if isinstance(function, Global):
            return self._vocabulary.call(self, function, args)
        return Inert("builtins", "object", args)

    def extend(self, target: object, items: list[Any]) -> None:
        """Append `items` to a list, or to the inert stand-in of one."""
        if isinstance(target, Inert):
            if not isinstance(target.state, list):
                target.state = []
            target = target.state
        if not isinstance(target, list):
            raise Damaged("corrupt: its pickle appends to what is no list", TRUNCATED)
        target.extend(items)

    def set_items(self, target: object, items: list[Any]) -> None:
        """Set keys and values, which alternate in `items`, in a dict or the inert stand-in of one."""
        if isinstance(target, Inert):
            if not isinstance(target.state, dict):
                target.state = {}
            target = target.state
        if not isinstance(target, dict) or len(items) % 2:
            raise Damaged("corrupt: its pickle sets items of what is no dict", TRUNCATED)
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[self._key(key)] = value

    def _key(self, key: object) -> Any:
        """Return a key that is cheap to hash, to print and to join into paths."""
        if key is None or isinstance(key, bool | float):
            return key
        if isinstance(key, str) and len(key) <= MAX_KEY_LENGTH:
            return key
        if isinstance(key, int) and key.bit_length() <= MAX_KEY_BITS:
            return key
        # Hashing a nested tuple can take exponential time, and no path can be made of it anyhow.
        self._odd_keys += 1
        return f"<{type(key).__name__} {self._odd_keys}>"

    def build(self, target: object, state: object) -> None:
        """Give `target` its state."""
        if not isinstance(target, Inert):
            self._vocabulary.build(target, state)
            return
        if isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], dict):
            state = {**(state[0] if isinstance(state[0], dict) else {}), **state[1]}
            self.spend(len(state))
        if isinstance(state, dict) and isinstance(target.state, dict):
            self.spend(len(state))
            target.state.update(state)
        elif not isinstance(target.state, list):
            target.state = state


# Values


@_on(b"N", b"\x88", b"\x89", b"]", b"}", b")", b"\x8f")
def _constant(m: Machine) -> None:
    opcode = m._data[m._at - 1]
    m._stack.append(_CONSTANTS[opcode]())


_CONSTANTS: dict[int, Callable[[], Any]] = {
    b"N"[0]: lambda: None,
    0x88: lambda: True,
    0x89: lambda: False,
    b"]"[0]: list,
    b"}"[0]: dict,
    b")"[0]: tuple,
    0x8F: list,  # EMPTY_SET: a set would hash its items
}


@_on(b"K")
def _binint1(m: Machine) -> None:
    m._stack.append(m._data[m._at])
    m._at += 1


def _push_number(opcode: bytes, layout: struct.Struct) -> None:
    _on(opcode)(lambda m: m._stack.append(m._number(layout)))


_push_number(b"J", _I4)
_push_number(b"M", _U2)
_push_number(b"G", _F8)


@_on(b"I")
def _int(m: Machine) -> None:
    line = m._line()
    m._stack.append(line == b"01" if line in (b"00", b"01") else int(line))


@_on(b"L")
def _long(m: Machine) -> None:
    m._stack.append(int(m._line().rstrip(b"L")))


@_on(b"F")
def _float(m: Machine) -> None:
    m._stack.append(float(m._line()))


def _push_long(opcode: bytes, layout: struct.Struct) -> None:
    _on(opcode)(lambda m: m._stack.append(int.from_bytes(m._take(m._number(layout)), "little", signed=True)))


_push_long(b"\x8a", _U1)
_push_long(b"\x8b", _I4)


def _text(raw: bytes) -> str:
    # Lone surrogates, which pickle allows, would break every later print.
    return raw.decode("utf-8", "backslashreplace")


def _push_text(opcode: bytes, layout: struct.Struct) -> None:
    _on(opcode)(lambda m: m._stack.append(_text(m._take(m._number(layout)))))


for _opcode, _layout in ((b"X", _U4), (b"\x8c", _U1), (b"\x8d", _U8), (b"T", _I4), (b"U", _U1)):
    _push_text(_opcode, _layout)


@_on(b"V")
def _unicode(m: Machine) -> None:
    text = m._line().decode("raw-unicode-escape")
    m._stack.append(_text(text.encode("utf-8", "surrogatepass")))


@_on(b"S")
def _string(m: Machine) -> None:
    line = m._line().strip()
    if len(line) < 2 or line[0] != line[-1] or line[:1] not in (b'"', b"'"):
        raise Damaged("corrupt: its pickle has a string without quotes", TRUNCATED)
    m._stack.append(_text(codecs.decode(line[1:-1], "unicode_escape").encode("utf-8", "surrogatepass")))


def _push_bytes(opcode: bytes, layout: struct.Struct) -> None:
    _on(opcode)(lambda m: m._stack.append(m._take(m._number(layout))))


for _opcode, _layout in ((b"B", _U4), (b"C", _U1), (b"\x8e", _U8), (b"\x96", _U8)):
    _push_bytes(_opcode, _layout)


# Containers


@_on(b"(")
def _mark(m: Machine) -> None:
    m._marked.append(m._stack)
    m._stack = []


@_on(b"t")
def _tuple(m: Machine) -> None:
    items = m._pop_mark()
    m._stack.append(tuple(items))


@_on(b"l", b"\x91")  # LIST, FROZENSET
def _list(m: Machine) -> None:
    items = m._pop_mark()
    m._stack.append(items)


@_on(b"d")
def _dict(m: Machine) -> None:
    items = m._pop_mark()
    target: dict[Any, Any] = {}
    m.set_items(target, items)
    m._stack.append(target)


def _push_tuple(opcode: bytes, size: int) -> None:
    def handler(m: Machine) -> None:
        if len(m._stack) < size:
            raise IndexError
        m._stack[-size:] = [tuple(m._stack[-size:])]

    _on(opcode)(handler)


_push_tuple(b"\x85", 1)
_push_tuple(b"\x86", 2)
_push_tuple(b"\x87", 3)


@_on(b"a")
def _append(m: Machine) -> None:
    item = m._stack.pop()
    m.extend(m._stack[-1], [item])


@_on(b"e", b"\x90")  # APPENDS, ADDITEMS
def _appends(m: Machine) -> None:
    items = m._pop_mark()
    m.extend(m._stack[-1], items)


@_on(b"s")
def _setitem(m: Machine) -> None:
    value, key = m._stack.pop(), m._stack.pop()
    m.set_items(m._stack[-1], [key, value])


@_on(b"u")
def _setitems(m: Machine) -> None:
    items = m._pop_mark()
    m.set_items(m._stack[-1], items)


# The stack and the memo


@_on(b"0")
def _pop(m: Machine) -> None:
    if m._stack:
        m._stack.pop()
    else:
        m._pop_mark()


@_on(b"1")
def _pop_marked(m: Machine) -> None:
    m._pop_mark()


@_on(b"2")
def _dup(m: Machine) -> None:
    m._stack.append(m._stack[-1])


@_on(b"g")
def _get(m: Machine) -> None:
    m._stack.append(m._memo[int(m._line())])


@_on(b"h")
def _binget(m: Machine) -> None:
    m._stack.append(m._memo[m._data[m._at]])
    m._at += 1


@_on(b"j")
def _long_binget(m: Machine) -> None:
    m._stack.append(m._memo[m._number(_U4)])


@_on(b"p")
def _put(m: Machine) -> None:
    m._memo[int(m._line())] = m._stack[-1]


@_on(b"q")
def _binput(m: Machine) -> None:
    m._memo[m._data[m._at]] = m._stack[-1]
    m._at += 1


@_on(b"r")
def _long_binput(m: Machine) -> None:
    m._memo[m._number(_U4)] = m._stack[-1]


@_on(b"\x94")
def _memoize(m: Machine) -> None:
    m._memo[len(m._memo)] = m._stack[-1]


# Names and calls: the opcodes that run code in an ordinary unpickler


def _global(m: Machine, module: object, name: object) -> Global:
    if not isinstance(module, str) or not isinstance(name, str):
        raise Damaged("corrupt: its pickle names a global without a name", TRUNCATED)
    return m._vocabulary.named(module, name)


@_on(b"c")
def _global_lines(m: Machine) -> None:
    module, name = m._line(), m._line()
    m._stack.append(_global(m, _text(module), _text(name)))


@_on(b"\x93")
def _stack_global(m: Machine) -> None:
    name, module = m._stack.pop(), m._stack.pop()
    m._stack.append(_global(m, module, name))


def _push_extension(opcode: bytes, layout: struct.Struct) -> None:
    _on(opcode)(lambda m: m._stack.append(_global(m, "copyreg", f"extension {m._number(layout)}")))


_push_extension(b"\x82", _U1)
_push_extension(b"\x83", _U2)
_push_extension(b"\x84", _I4)


@_on(b"R", b"\x81")  # REDUCE, NEWOBJ
def _reduce(m: Machine) -> None:
    args, function = m._stack.pop(), m._stack.pop()
    m._stack.append(m.call(function, args))


@_on(b"\x92")
def _newobj_ex(m: Machine) -> None:
    keywords, args, function = m._stack.pop(), m._stack.pop(), m._stack.pop()
    args = args if isinstance(args, tuple) else (args,)
    m._stack.append(m.call(function, (*args, keywords) if keywords else args))


@_on(b"o")
def _obj(m: Machine) -> None:
    function, *args = m._pop_mark()
    m._stack.append(m.call(function, tuple(args)))


@_on(b"i")
def _inst(m: Machine) -> None:
    function = _global(m, _text(m._line()), _text(m._line()))
    args = m._pop_mark()
    m._stack.append(m.call(function, tuple(args)))


@_on(b"b")
def _build(m: Machine) -> None:
    state = m._stack.pop()
    m.build(m._stack[-1], state)


@_on(b"P")
def _persid(m: Machine) -> None:
    m._stack.append(m._vocabulary.persistent(_text(m._line())))


@_on(b"Q")
def _binpersid(m: Machine) -> None:
    m._stack.append(m._vocabulary.persistent(m._stack.pop()))


# Framing


@_on(b"\x80")
def _proto(m: Machine) -> None:
    version = m._data[m._at]
    m._at += 1
    if version > MAX_PROTOCOL:
        raise Damaged(f"written with pickle protocol {version}, which is not known here")


@_on(b"\x95")
def _frame(m: Machine) -> None:
    m._number(_U8)  # frames only help an unpickler that reads from a stream


@_on(b"\x97", b"\x98")
def _buffer(m: Machine) -> None:
    raise Damaged("corrupt: its pickle wants buffers from outside the file", TRUNCATED)

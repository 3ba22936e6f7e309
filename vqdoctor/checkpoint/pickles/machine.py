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
from typing import Any, Protocol, TypeVar

from vqdoctor.checkpoint.budget import Budget
from vqdoctor.checkpoint.files import FEWER, TRUNCATED, Damaged
from vqdoctor.checkpoint.pickles.known import FILLED_LATER
from vqdoctor.checkpoint.tree import Global, Inert

C = TypeVar("C", list[Any], dict[Any, Any])

CONTAINER_STEPS = 3
CALL_STEPS = 12
"""The extra price of a container, and of a name or a call, with the walks over it later."""
LINE_STEPS = 2
"""The extra price of an argument that ends with its line, as in protocol 0."""
MAX_PROTOCOL = 5
MAX_KEY_LENGTH = 1024
MAX_KEY_BITS = 64


class Vocabulary(Protocol):
    """The meaning of names and calls in a pickle."""

    def named(self, module: str, name: str) -> Global:
        """Return a fresh stand-in for a global, and take note of it."""

    def call(self, machine: Machine, function: Global, args: tuple[Any, ...]) -> Any:
        """Return the meaning of a call of `function`, or an `Inert`."""

    def persistent(self, pid: object) -> Any:
        """Return the meaning of a persistent id, or an `Inert`."""

    def build(self, target: object, state: object) -> None:
        """Give its state to something that this vocabulary made; states of no use are dropped."""

    def key(self, key: object) -> str | None:
        """Return the text that stands for an object as a key of a dict; None where any will do."""


_U1, _U2, _U4, _U8 = (struct.Struct(f"<{code}") for code in "BHIQ")
_I4, _F8 = struct.Struct("<i"), struct.Struct(">d")

Handler = Callable[["Machine"], object]
_HANDLERS: dict[int, Handler] = {}


def _on(*opcodes: bytes) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        _HANDLERS.update({opcode[0]: handler for opcode in opcodes})
        return handler

    return register


def unpickle(data: bytes, vocabulary: Vocabulary, budget: Budget | None = None) -> Any:
    """Return the value that the pickle builds, with inert stand-ins for all foreign objects.

    Args:
        data: the pickle.
        vocabulary: the meaning of the names in it.
        budget: the steps that it may take, and where they are taken from.

    Raises:
        Damaged: if it is cut, malformed, or larger than the budget.
    """
    return Machine(data, vocabulary, budget or Budget()).run()


class EndsEarly(Damaged):
    """A pickle that takes more than there is."""


def unpickle_first(data: bytes, vocabulary: Vocabulary, budget: Budget) -> tuple[Any, int]:
    """Return the value of the pickle that `data` begins with, and how many bytes it takes; see `unpickle`.

    Raises:
        EndsEarly: if the pickle goes on behind `data`, or is malformed in the same way.
        Damaged: if it is malformed otherwise, or larger than the budget.
    """
    machine = Machine(data, vocabulary, budget)
    return machine.run(), machine._at


class Machine:
    """One run over one pickle."""

    def __init__(self, data: bytes, vocabulary: Vocabulary, budget: Budget) -> None:
        self._data = data
        self._at = 0
        self._budget, self._steps = budget, budget.steps
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []
        # A dict, not an array: LONG_BINPUT 4294967295 would make an array of that length.
        self._memo: dict[int, Any] = {}
        self._vocabulary = vocabulary
        self._odd_keys: dict[Any, str] = {}

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
                handler = _HANDLERS.get(opcode)
                if handler is None:
                    raise Damaged(f"corrupt: its pickle has an unknown opcode (0x{opcode:02x})", TRUNCATED)
                handler(self)
        except (IndexError, struct.error):
            raise EndsEarly(
                "corrupt: its pickle ends too early or takes what is not there", TRUNCATED
            ) from None
        except KeyError:
            raise Damaged("corrupt: its pickle refers to what it never stored", TRUNCATED) from None
        finally:
            self._budget.steps = self._steps

    def spend(self, steps: int) -> None:
        """Pay for work that grows with a length.

        Raises:
            Damaged: if the budget is spent.
        """
        self._steps -= steps
        if self._steps < 0:
            raise Damaged(f"its pickle takes more than {self._budget.granted:,} steps to read", FEWER)

    def paid(self, made: C) -> C:
        """Return a new container, and pay for it."""
        self._steps -= CONTAINER_STEPS
        return made

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
        self._steps -= LINE_STEPS
        end = self._data.find(b"\n", self._at)
        if end < 0:
            raise IndexError
        line = self._data[self._at : end]
        self._at = end + 1
        return line

    def _sized(self, layout: struct.Struct) -> bytes:
        return self._take(self._number(layout))

    def _long(self, layout: struct.Struct) -> int:
        return int.from_bytes(self._sized(layout), "little", signed=True)

    def _global(self, module: object, name: object) -> Global:
        if not isinstance(module, str) or not isinstance(name, str):
            raise Damaged("corrupt: its pickle names a global without a name", TRUNCATED)
        self.spend(CALL_STEPS)
        return self._vocabulary.named(module, name)

    # The stack

    def _pop_mark(self) -> list[Any]:
        items = self._stack
        self._stack = self._marked.pop()
        return items

    def _below_mark(self) -> tuple[Any, list[Any]]:
        items = self._pop_mark()
        return self._stack[-1], items

    def _below_top(self) -> tuple[Any, Any]:
        top = self._stack.pop()
        return self._stack[-1], top

    def call(self, function: object, args: object) -> Any:
        """Return the meaning of a call of `function`; never calls anything that the file names."""
        args = args if isinstance(args, tuple) else (args,)
        self.spend(CALL_STEPS + len(args))
        if isinstance(function, Global):
            return self._vocabulary.call(self, function, args)
        return Inert("builtins", "object", args)

    def new(self, function: object, args: object) -> Any:
        """Return the meaning of a new object, whose `__init__` is never called: a container stays empty."""
        return self.call(function, () if str(function) in FILLED_LATER else args)

    def extend(self, target: object, items: list[Any]) -> None:
        """Append `items` to a list, or to the inert stand-in of one."""
        self._container(target, list).extend(items)

    def set_items(self, target: object, items: list[Any]) -> None:
        """Set keys and values, which alternate in `items`, in a dict or the inert stand-in of one."""
        entries = self._container(target if len(items) % 2 == 0 else None, dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            entries[self._key(key)] = value

    def _container(self, target: object, kind: type[C]) -> C:
        if isinstance(target, Inert):
            if not isinstance(target.state, kind):
                target.state = kind()
            target = target.state
        if not isinstance(target, kind):
            raise Damaged(f"corrupt: its pickle adds to something other than a {kind.__name__}", TRUNCATED)
        return target

    def _key(self, key: object) -> Any:
        """Return a key that is cheap to hash, to print and to join into paths."""
        if key is None or isinstance(key, bool | float):
            return key
        if isinstance(key, str) and len(key) <= MAX_KEY_LENGTH:
            return key
        if isinstance(key, int) and key.bit_length() <= MAX_KEY_BITS:
            return key
        if (shown := self._vocabulary.key(key)) is not None:
            return shown
        # Equal keys get one word, for the later value takes the place of the earlier. A nested tuple gets one
        # of its own: to hash it can take exponential time.
        cheap = isinstance(key, bytes | str | int | Global) or _is_flat(key)
        self.spend(key.bit_length() // MAX_KEY_LENGTH if isinstance(key, int) else 0)
        same = cheap, type(key), key if cheap else len(self._odd_keys)
        return self._odd_keys.setdefault(same, f"<{type(key).__name__} {len(self._odd_keys) + 1}>")

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


def _is_flat(key: object) -> bool:
    """Return whether this is a short tuple of plain values, which is cheap to hash."""
    if not isinstance(key, tuple) or len(key) > MAX_KEY_BITS:
        return False
    return all(
        item.bit_length() <= MAX_KEY_BITS
        if isinstance(item, int)
        else item is None or isinstance(item, str | float)
        for item in key
    )


# Opcodes that push one value


_PUSHES: dict[bytes, Callable[[Machine], object]] = {
    b"N": lambda m: None,
    b"\x88": lambda m: True,
    b"\x89": lambda m: False,
    b"]\x8f": lambda m: m.paid([]),  # EMPTY_LIST, EMPTY_SET: a set would hash its items
    b"}": lambda m: m.paid({}),
    b")": lambda m: (),
    b"J": lambda m: m._number(_I4),
    b"M": lambda m: m._number(_U2),
    b"G": lambda m: m._number(_F8),
    b"L": lambda m: int(m._line().rstrip(b"L")),
    b"F": lambda m: float(m._line()),
    b"\x8a": lambda m: m._long(_U1),
    b"\x8b": lambda m: m._long(_I4),
    b"X": lambda m: _text(m._sized(_U4)),
    b"\x8cU": lambda m: _text(m._sized(_U1)),
    b"\x8d": lambda m: _text(m._sized(_U8)),
    b"T": lambda m: _text(m._sized(_I4)),
    b"V": lambda m: _surrogates_escaped(m._line().decode("raw-unicode-escape")),
    b"B": lambda m: m._sized(_U4),
    b"C": lambda m: m._sized(_U1),
    b"\x8e\x96": lambda m: m._sized(_U8),
    b"t": lambda m: tuple(m._pop_mark()),
    b"l\x91": lambda m: m._pop_mark(),  # LIST, FROZENSET
    b"2": lambda m: m._stack[-1],
    b"g": lambda m: m._memo[int(m._line())],
    b"j": lambda m: m._memo[m._number(_U4)],
    # Names and calls, which run code in an ordinary unpickler.
    b"c": lambda m: m._global(_text(m._line()), _text(m._line())),
    b"\x82": lambda m: m._global("copyreg", f"extension {m._number(_U1)}"),
    b"\x83": lambda m: m._global("copyreg", f"extension {m._number(_U2)}"),
    b"\x84": lambda m: m._global("copyreg", f"extension {m._number(_I4)}"),
    b"P": lambda m: m._vocabulary.persistent(_text(m._line())),
    b"Q": lambda m: m._vocabulary.persistent(m._stack.pop()),
}


def _pushing(value: Callable[[Machine], object]) -> Handler:
    def handler(m: Machine) -> None:
        pushed = value(m)  # which may replace the stack
        m._stack.append(pushed)

    return handler


_HANDLERS |= {opcode: _pushing(value) for opcodes, value in _PUSHES.items() for opcode in opcodes}


def _text(raw: bytes) -> str:
    # Lone surrogates, which pickle allows, would break every later print.
    return raw.decode("utf-8", "backslashreplace")


def _surrogates_escaped(text: str) -> str:
    return _text(text.encode("utf-8", "surrogatepass"))


@_on(b"K")
def _binint1(m: Machine) -> None:
    m._stack.append(m._data[m._at])
    m._at += 1


@_on(b"I")
def _int(m: Machine) -> None:
    line = m._line()
    m._stack.append(line == b"01" if line in (b"00", b"01") else int(line))


@_on(b"S")
def _string(m: Machine) -> None:
    line = m._line().strip()
    if len(line) < 2 or line[0] != line[-1] or line[:1] not in (b'"', b"'"):
        raise Damaged("corrupt: its pickle has a string without quotes", TRUNCATED)
    m._stack.append(_surrogates_escaped(codecs.decode(line[1:-1], "unicode_escape")))


# Opcodes that change the value below the mark or the top


_CHANGES: dict[bytes, Callable[[Machine], object]] = {
    b"e\x90": lambda m: m.extend(*m._below_mark()),  # APPENDS, ADDITEMS
    b"u": lambda m: m.set_items(*m._below_mark()),
    b"b": lambda m: m.build(*m._below_top()),
    b"1": lambda m: m._pop_mark(),
    b"\x95": lambda m: m._number(_U8),  # FRAME only helps an unpickler that reads from a stream
}

_HANDLERS |= {opcode: change for opcodes, change in _CHANGES.items() for opcode in opcodes}


# Containers


@_on(b"(")
def _mark(m: Machine) -> None:
    m._marked.append(m._stack)
    m._stack = m.paid([])


@_on(b"d")
def _dict(m: Machine) -> None:
    items = m._pop_mark()
    target: dict[Any, Any] = {}
    m.set_items(target, items)
    m._stack.append(target)


@_on(b"\x85", b"\x86", b"\x87")  # TUPLE1 to TUPLE3
def _short_tuple(m: Machine) -> None:
    size = m._data[m._at - 1] - 0x84
    if len(m._stack) < size:
        raise IndexError
    m._stack[-size:] = [tuple(m._stack[-size:])]


@_on(b"a")
def _append(m: Machine) -> None:
    target, item = m._below_top()
    m.extend(target, [item])


@_on(b"s")
def _setitem(m: Machine) -> None:
    value, key = m._stack.pop(), m._stack.pop()
    m.set_items(m._stack[-1], [key, value])


# The stack and the memo


@_on(b"0")
def _pop(m: Machine) -> None:
    if m._stack:
        m._stack.pop()
    else:
        m._pop_mark()


@_on(b"h")
def _binget(m: Machine) -> None:
    m._stack.append(m._memo[m._data[m._at]])
    m._at += 1


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


# Names and calls


@_on(b"\x93")
def _stack_global(m: Machine) -> None:
    name, module = m._stack.pop(), m._stack.pop()
    m._stack.append(m._global(module, name))


@_on(b"R")
def _reduce(m: Machine) -> None:
    args, function = m._stack.pop(), m._stack.pop()
    m._stack.append(m.call(function, args))


@_on(b"\x81")
def _newobj(m: Machine) -> None:
    args, function = m._stack.pop(), m._stack.pop()
    m._stack.append(m.new(function, args))


@_on(b"\x92")
def _newobj_ex(m: Machine) -> None:
    keywords, args, function = m._stack.pop(), m._stack.pop(), m._stack.pop()
    args = args if isinstance(args, tuple) else (args,)
    m._stack.append(m.new(function, (*args, keywords) if keywords else args))


@_on(b"o")
def _obj(m: Machine) -> None:
    function, *args = m._pop_mark()
    m._stack.append(m.call(function, tuple(args)))


@_on(b"i")
def _inst(m: Machine) -> None:
    function = m._global(_text(m._line()), _text(m._line()))
    args = m._pop_mark()
    m._stack.append(m.call(function, tuple(args)))


# Framing


@_on(b"\x80")
def _proto(m: Machine) -> None:
    version = m._data[m._at]
    m._at += 1
    if version > MAX_PROTOCOL:
        raise Damaged(f"written with pickle protocol {version}, which is not known here")


@_on(b"\x97", b"\x98")
def _buffer(m: Machine) -> None:
    raise Damaged("corrupt: its pickle wants buffers from outside the file", TRUNCATED)

"""Watching a VQ layer at work: z_e going in, z_q and the indices coming out, and changing z_q.

Most layers are called. Those of some codecs (EnCodec, Mimi) never are: the model uses their `encode` and
`decode` methods, which no hook sees, so that on the copy these methods are wrapped while it is watched.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import nn

from vqdoctor.models.tensors import tensors_of

METHODS = ("encode", "decode", "quantize", "dequantize", "embed_code", "decode_code", "decode_latents")
"""Methods by which models use a quantizer without calling it."""


@dataclass
class Call:
    """One call of a VQ layer, with the graph that autograd recorded.

    Attributes:
        z_e: the layer's float input, as the layer saw it.
        z_q: the float output of that shape, or else one that differs in a single axis (a Gumbel layer's
            codes need not have the dimension of its input); None where the layer gives none.
        indices: the first integer output; None where the layer gives none.
        integers: all integer outputs; where there is none, the places of the ones in one-hot outputs.
        losses: the float outputs of one value each that have a gradient: the layer's own losses.
        training: whether the layer was in train mode.
        recorded: whether autograd was recording: not so under `no_grad`.
    """

    z_e: torch.Tensor
    z_q: torch.Tensor | None = None
    indices: torch.Tensor | None = None
    integers: tuple[torch.Tensor, ...] = ()
    losses: tuple[torch.Tensor, ...] = ()
    training: bool = False
    recorded: bool = True

    def take(self, output: Any, given: torch.Tensor) -> None:
        """Take z_q, the indices and the losses from what the layer returned for the z_e that was given."""
        tensors = list(tensors_of(output))
        floats = [t for t in tensors if t.is_floating_point() and t is not given]
        same = (t for t in floats if t.shape == self.z_e.shape)
        self.z_q = next(same, None)
        if self.z_q is None:
            self.z_q = next((t for t in floats if _differs_in_one_axis(t, self.z_e)), None)
        self.losses = tuple(t for t in floats if t.numel() == 1 and t.requires_grad and t is not self.z_q)
        self.integers = codes_in(output)
        self.indices = self.integers[0] if self.integers else None

    @property
    def says_codes(self) -> bool:
        """Whether the call gave anything that tells its codes."""
        return self.z_q is not None or self.indices is not None


@dataclass
class Watch:
    """The calls that a layer received while it was watched, the latest last.

    Attributes:
        forwards: calls of the layer itself.
        methods: calls of its methods, also those that its own forward made.
        fetched: integer inputs for which the layer returned floats: what a table was asked for.
    """

    forwards: list[Call] = field(default_factory=list)
    methods: list[Call] = field(default_factory=list)
    fetched: list[torch.Tensor] = field(default_factory=list)

    @property
    def calls(self) -> list[Call]:
        """The calls of the layer itself, or, where it is never called, of its methods."""
        return [c for c in self.forwards if c.says_codes] or [c for c in self.methods if c.says_codes]

    @property
    def by_method(self) -> bool:
        """Whether the layer was used through its methods alone."""
        return not any(c.says_codes for c in self.forwards)

    @property
    def last(self) -> Call:
        """The latest call."""
        return self.calls[-1]


@contextmanager
def watch(
    layer: nn.Module,
    *,
    keep_graph: bool = False,
    change: Callable[[Call], torch.Tensor] | None = None,
) -> Iterator[Watch]:
    """Record the calls of `layer`, which must be one of a working copy.

    Args:
        layer: the module to watch.
        keep_graph: keep z_e and z_q in the autograd graph, and make z_e require a gradient where
            the encoder does not; else both are detached.
        change: given a call, returns what the model gets in place of z_q.
    """
    watcher = _Watcher(layer, keep_graph, change)
    handles = [
        layer.register_forward_pre_hook(watcher.before, with_kwargs=True),
        layer.register_forward_hook(watcher.after, with_kwargs=True),
    ]
    with ExitStack() as stack:
        for handle in handles:
            stack.callback(handle.remove)
        for name, method in watcher.methods():
            stack.enter_context(replaced(layer, name, method))
        yield watcher.seen


@contextmanager
def replaced(module: nn.Module, name: str, method: Callable[..., Any]) -> Iterator[None]:
    """Give a module another method while the context lasts, and then what it had itself."""
    own = vars(module).get(name)
    setattr(module, name, method)
    try:
        yield
    finally:
        if own is None:
            delattr(module, name)
        else:
            setattr(module, name, own)


class _Watcher:
    def __init__(
        self, layer: nn.Module, keep_graph: bool, change: Callable[[Call], torch.Tensor] | None
    ) -> None:
        self.seen = Watch()
        self._layer = layer
        self._keep_graph = keep_graph
        self._change = change
        self._open: list[tuple[Call, torch.Tensor] | None] = []  # forwards that have not returned
        self._in_method = False

    def before(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        z_e = _first_float((args, kwargs))
        if z_e is None:
            self._open.append(None)
            return None
        if self._keep_graph and not z_e.requires_grad:
            fresh = z_e.detach().requires_grad_()
            args, kwargs = swap((args, kwargs), z_e, fresh)
            z_e = fresh
        call = self._call(z_e)
        self._open.append((call, z_e))
        self.seen.forwards.append(call)
        return args, kwargs

    def after(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        opened = self._open.pop() if self._open else None
        if opened is None:
            self._note_fetched((args, kwargs), output)
            return None
        call, z_e = opened
        call.take(output, z_e)
        return self._changed(call, output)

    def methods(self) -> Iterator[tuple[str, Callable[..., Any]]]:
        """Yield the layer's methods by name, wrapped; a scripted layer's cannot be."""
        for name in () if isinstance(self._layer, torch.jit.ScriptModule) else METHODS:
            method = getattr(self._layer, name, None)
            if callable(method) and not isinstance(method, nn.Module):
                yield name, self._watched(method)

    def _watched(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def watched(*args: Any, **kwargs: Any) -> Any:
            if self._in_method:  # the layer's own affair: `encode` may call `quantize`
                return method(*args, **kwargs)
            self._in_method = True
            try:
                output = method(*args, **kwargs)
            finally:
                self._in_method = False
            return self._after_method((args, kwargs), output)

        return watched

    def _after_method(self, given: Any, output: Any) -> Any:
        z_e = _first_float(given)
        if z_e is not None:
            call = self._call(z_e)
            call.take(output, z_e)
            self.seen.methods.append(call)
        else:
            self._note_fetched(given, output)
            found = self._decoded(given, output)
            if found is None:
                return output
            call = found
        if self._open:  # within a forward, which has the last word
            call.z_q = None if call.z_q is None else self._kept(call.z_q)
            return output
        changed = self._changed(call, output)
        return output if changed is None else changed

    def _decoded(self, given: Any, output: Any) -> Call | None:
        """Return the call whose indices are now looked up, with what came out as its z_q."""
        asked = next((t for t in tensors_of(given) if _is_integer(t)), None)
        codes = _first_float(output)
        if asked is None or codes is None:
            return None
        for call in reversed(self.seen.methods):
            if call.indices is not None and torch.equal(call.indices, asked.detach()):
                call.z_q = codes
                return call
        return None

    def _note_fetched(self, given: Any, output: Any) -> None:
        asked = next((t for t in tensors_of(given) if _is_integer(t)), None)
        if asked is not None and _first_float(output) is not None:
            self.seen.fetched.append(asked.detach())

    def _call(self, z_e: torch.Tensor) -> Call:
        return Call(z_e=self._kept(z_e), training=self._layer.training, recorded=torch.is_grad_enabled())

    def _changed(self, call: Call, output: Any) -> Any:
        """Return the output with z_q changed; None where it stays."""
        if call.z_q is None:
            return None
        result = None if self._change is None else swap(output, call.z_q, self._change(call))
        call.z_q = self._kept(call.z_q)
        return result

    def _kept(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor if self._keep_graph else tensor.detach()


def swap(value: Any, old: torch.Tensor, new: torch.Tensor) -> Any:
    """Return `value` with the tensor `old` replaced by `new`, in the same containers."""
    if value is old:
        return new
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(swap(item, old, new) for item in value))
    if isinstance(value, tuple | list):
        return type(value)(swap(item, old, new) for item in value)
    if isinstance(value, Mapping) and hasattr(value, "__setitem__"):
        twin = copy.copy(value)  # a ModelOutput also sets the attribute of that name
        for key, item in value.items():
            twin[key] = swap(item, old, new)
        return twin
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        twin = copy.copy(cast("Any", value))
        for part in dataclasses.fields(value):
            object.__setattr__(twin, part.name, swap(getattr(value, part.name), old, new))
        return twin
    return value


def codes_in(output: Any) -> tuple[torch.Tensor, ...]:
    """Return what may be codes in a layer's output: integers, or else where one-hot rows have their ones."""
    tensors = [t.detach() for t in tensors_of(output) if t.ndim]
    integers = tuple(t for t in tensors if _is_integer(t))
    return integers or tuple(t.argmax(-1) for t in tensors if t.is_floating_point() and _is_one_hot(t))


def _first_float(value: Any) -> torch.Tensor | None:
    return next((t for t in tensors_of(value) if t.is_floating_point()), None)


def _is_integer(tensor: torch.Tensor) -> bool:
    return not tensor.is_floating_point() and not tensor.is_complex() and tensor.dtype != torch.bool


def _is_one_hot(tensor: torch.Tensor) -> bool:
    """Whether every row is zeros and a single one, as `encodings` of zalando's notebook are."""
    if tensor.ndim < 2 or tensor.shape[-1] < 2 or not tensor.numel():
        return False
    ones = tensor == 1
    return bool(((tensor == 0) | ones).all() and (ones.sum(-1) == 1).all())


def _differs_in_one_axis(tensor: torch.Tensor, z_e: torch.Tensor) -> bool:
    if tensor.ndim != z_e.ndim or tensor.ndim < 2:
        return False
    return [a == b for a, b in zip(tensor.shape, z_e.shape, strict=True)].count(False) == 1 and (
        tensor.shape[0] == z_e.shape[0]
    )

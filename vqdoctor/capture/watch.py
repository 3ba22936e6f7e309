"""Watching a VQ layer at work: z_e going in, z_q and the indices coming out, and changing z_q.

Most layers are called. The layers of some codecs (EnCodec, Mimi) never are: the model uses their `encode` and
`decode` methods, which no hook sees, so that on the copy these methods are wrapped while it is watched.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from vqdoctor.capture.call import Args, Call, Kwargs, first_float, is_integer, swap
from vqdoctor.models.tensors import tensors_of

METHODS = (
    "encode",
    "decode",
    "quantize",
    "dequantize",
    "embed_code",
    "decode_code",
    "decode_latents",
    "inference",
)
"""Methods by which models use a quantizer without calling it; `inference` is that of nsvq in eval mode."""


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
    def mapped(self) -> list[Call]:
        """The calls that gave a z_q."""
        return [call for call in self.calls if call.z_q is not None]


@contextmanager
def watch(
    layer: nn.Module,
    *,
    keep_graph: bool = False,
    change: Callable[[Call], torch.Tensor | None] | None = None,
) -> Iterator[Watch]:
    """Record the calls of `layer`, which must be one of a working copy.

    Args:
        layer: the module to watch.
        keep_graph: keep z_e and z_q in the autograd graph, and make z_e require a gradient where
            the encoder does not; else both are detached.
        change: given a call, returns the tensor that the model gets in place of z_q; None leaves it.
    """
    watcher = _Watcher(layer, keep_graph, change)
    with ExitStack() as stack:
        stack.callback(layer.register_forward_pre_hook(watcher.before, with_kwargs=True).remove)
        stack.callback(layer.register_forward_hook(watcher.after, with_kwargs=True).remove)
        for name, method in watcher.methods():
            stack.enter_context(replaced(layer, name, method))
        yield watcher.seen


@contextmanager
def watch_each(
    modules: Iterable[nn.Module],
    changes: Mapping[nn.Module, Callable[[Call], torch.Tensor | None]] | None = None,
    *,
    keep_graph: bool = False,
) -> Iterator[dict[nn.Module, Watch]]:
    """Record the calls of several modules, each once; see `watch`."""
    changes = changes or {}
    with ExitStack() as stack:
        yield {
            module: stack.enter_context(watch(module, keep_graph=keep_graph, change=changes.get(module)))
            for module in dict.fromkeys(modules)
        }


@contextmanager
def in_order(called: dict[nn.Module, None]) -> Iterator[None]:
    """Note every module that is called while the context lasts, in the order of their first calls."""
    hook = register_module_forward_pre_hook(lambda module, _: called.setdefault(module))
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def replaced(module: nn.Module, name: str, method: Callable[..., Any]) -> Iterator[None]:
    """Give a module another method while the context lasts, and then its own again."""
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
        self, layer: nn.Module, keep_graph: bool, change: Callable[[Call], torch.Tensor | None] | None
    ) -> None:
        self.seen = Watch()
        self._layer = layer
        self._keep_graph = keep_graph
        self._change = change
        self._open: list[Call | None] = []  # forwards that have not returned
        self._in_method = False

    def before(self, _: nn.Module, args: Args, kwargs: dict[str, Any]) -> Any:
        z_e = first_float((args, kwargs))
        if z_e is None:
            self._open.append(None)
            return None
        if self._keep_graph and not z_e.requires_grad:
            fresh = z_e.detach().requires_grad_()
            args, kwargs = swap((args, kwargs), z_e, fresh)
            z_e = fresh
        call = self._call(args, kwargs, z_e)
        self._open.append(call)
        self.seen.forwards.append(call)
        return args, kwargs

    def after(self, _: nn.Module, args: Args, kwargs: Kwargs, output: Any) -> Any:
        call = self._open.pop() if self._open else None
        if call is None:
            self._note_fetched((args, kwargs), output)
            return None
        call.take(output)
        return self._changed(call, output)

    def methods(self) -> Iterator[tuple[str, Callable[..., Any]]]:
        """Yield the layer's methods by name, wrapped; the methods of a scripted layer cannot be wrapped."""
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
            return self._after_method(args, kwargs, output)

        return watched

    def _after_method(self, args: Args, kwargs: Kwargs, output: Any) -> Any:
        z_e = first_float((args, kwargs))
        if z_e is not None:
            call = self._call(args, kwargs, z_e)
            call.take(output)
            self.seen.methods.append(call)
        else:
            asked, codes = self._note_fetched((args, kwargs), output)
            if asked is None or codes is None:
                return output
            earlier = (c for c in reversed(self.seen.methods) if c.integers)
            found = next((c for c in earlier if torch.equal(c.integers[0], asked)), None)
            if found is None:
                return output
            call = found  # its indices are now looked up
            call.z_q = codes
        if self._open:  # within a forward, which has the last word
            call.z_q = None if call.z_q is None else self._kept(call.z_q)
            return output
        changed = self._changed(call, output)
        return output if changed is None else changed

    def _note_fetched(self, given: Any, output: Any) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Return the integers that were asked for, and the floats that the layer returned for them."""
        asked = next((t.detach() for t in tensors_of(given) if is_integer(t)), None)
        codes = first_float(output)
        if asked is not None and codes is not None:
            self.seen.fetched.append(asked)
        return asked, codes

    def _call(self, args: Args, kwargs: Kwargs, z_e: torch.Tensor) -> Call:
        call = Call.of(self._layer, args, kwargs, z_e)
        call.z_e = self._kept(z_e)
        return call

    def _changed(self, call: Call, output: Any) -> Any:
        """Return the output with z_q changed; None where it stays."""
        if call.z_q is None:
            return None
        new = None if self._change is None else self._change(call)
        result = None if new is None else swap(output, call.z_q, new)
        call.z_q = self._kept(call.z_q)
        return result

    def _kept(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor if self._keep_graph else tensor.detach()

"""The share of each process in a batch: its own samples, and the VQ layers of all.

All processes go through the same batches in the same order, and each runs the model on its own samples. The
work before and after the VQ layers is thereby divided. The layers are not: each gets the vectors of all
processes, and the model goes on with those of its own samples. So whatever a layer does in its forward pass
(an EMA, a k-means initialisation, a revival, an entropy over the batch) is what it would do in one process
with the whole batch, and its counts and sums are those of all vectors. To add up the counts and sums
afterwards is less to send, but takes the layer's own rule: its decay, its smoothing, its threshold of dead
codes. The code of others does not tell these.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from vqdoctor.capture.call import FAILURES, first_float, is_integer, swap
from vqdoctor.capture.layer import CapturedLayer, Change, Watched, passes, watching
from vqdoctor.core.errors import UserError
from vqdoctor.models.task import Batch, Task
from vqdoctor.models.tensors import mapped, samples_of, tensors_of
from vqdoctor.models.untouched import in_eval_mode, seed_all
from vqdoctor.training.ranks import Ranks

MEAN = 1e-4
"""Relative difference up to which the loss of a batch is the mean of its parts' losses: sums of float32 in
another order differ by 1e-6, and a sum in place of a mean differs by the number of parts."""

SAME = 1e-9
"""Relative difference of the sums of two batches, in float64, up to which they are the same batch."""


@dataclass(kw_only=True, eq=False)
class Shares:
    """This process's share of the batches of one training.

    Attributes:
        ranks: the processes.
        whole: why each process has the whole of every batch; "" where the samples are divided.
        cuts: the sample that each process begins with, of the batch at hand, and the number of samples; None
            while each has the whole of it.
    """

    ranks: Ranks = field(default_factory=Ranks)
    whole: str = field(default="", init=False)
    cuts: list[int] | None = field(default=None, init=False)
    _mark: float = field(default=0.0, init=False)

    @property
    def own(self) -> slice:
        """This process's samples of the batch at hand."""
        return slice(*self.cuts[self.ranks.rank :][:2]) if self.cuts else slice(None)

    @property
    def weight(self) -> float:
        """The weight of its losses, so that those of all processes add up to the loss of the batch."""
        size = self.ranks.size
        return 1.0 / size if self.cuts is None else (self.own.stop - self.own.start) / self.cuts[-1]

    def of(self, batch: Batch) -> Batch:
        """Return this process's part of a batch, which is the batch at hand from then on."""
        self.cuts = None
        size = self.ranks.size
        if size == 1:
            return batch
        self._mark = sum(float(tensor.double().sum()) for tensor in tensors_of(batch))
        if self.whole or (samples := samples_of(batch)) is None or samples < size:
            return batch
        self.cuts = [samples * rank // size for rank in range(size + 1)]
        return mapped(batch, lambda tensor: tensor[self.own] if tensor.ndim else tensor)

    def added(self, values: Sequence[float]) -> list[float]:
        """Return the sums of numbers over all processes, which must have the same batch at hand.

        Raises:
            UserError: if they do not.
        """
        *sums, marks = self.ranks.added([*values, self._mark])
        mean = marks / self.ranks.size
        if abs(mean - self._mark) > SAME * abs(mean):
            what = 'the processes got different batches from task.batches("train")'
            raise UserError(what, "draw their order from a seed that is the same in every process")
        return sums

    def sum_of_shares(self, tensors: Sequence[torch.Tensor | None]) -> Sequence[torch.Tensor | None]:
        """Return tensors of all the batch's vectors, as the weighted means over the processes."""
        if self.ranks.size == 1:
            return tensors
        weighed = [None if tensor is None else self.weight * tensor for tensor in tensors]
        self.ranks.add_up([tensor for tensor in weighed if tensor is not None])
        return weighed

    def prepare(self, model: nn.Module, task: Task, batch: Batch, layers: tuple[CapturedLayer, ...]) -> str:
        """Find out on a batch whether samples can be divided, and return why they cannot; "" where they can.

        The loss of a batch must be the mean of its parts' losses, and the rows of a layer's input must follow
        the samples. Else every process runs whole batches: the result is the same, and no sooner there.
        """
        self.whole = ""
        part = self.of(batch)
        if self.cuts is None:
            self.whole = "a batch does not show its samples, or has fewer than there are processes"
        elif any(layer.inline for layer in layers):
            self.whole = "the model looks its codes up itself"
        else:
            self.whole = self._against(model, task, batch, part, layers)
        unlike = any(self.ranks.added([float(bool(self.whole))]))
        self.whole = self.ranks.agreed(self.whole) or ("the parts differ in form" if unlike else "")
        self.cuts = None
        return self.whole

    def _against(
        self, model: nn.Module, task: Task, batch: Batch, part: Batch, layers: tuple[CapturedLayer, ...]
    ) -> str:
        """Return the reason against a division that a batch and its part show; "" without one."""
        assert self.cuts is not None
        loss, rows = _tried(model, task, batch, layers)
        own, part_rows = _tried(model, task, part, layers)
        (mean,) = self.ranks.added([own * self.weight])
        if None in rows:
            return "a VQ layer is used through its methods"
        if not abs(mean - loss) <= MEAN * max(abs(loss), abs(mean)):
            return "the loss of a batch is not the mean of its parts' losses"
        samples = self.own.stop - self.own.start
        pairs = zip(rows, part_rows, strict=True)
        if any(a is None or b is None or a * samples != b * self.cuts[-1] for a, b in pairs):
            return "the first axis of a VQ layer's input is not that of the samples"
        return ""

    @contextlib.contextmanager
    def watching(self, layers: tuple[CapturedLayer, ...], change: Change | None) -> Iterator[Watched]:
        """Watch the layers in one pass of the batch at hand; each gets the vectors of all processes.

        Args:
            layers: the layers of one model.
            change: see `capture.layer.watching`.
        """
        joints = [] if self.cuts is None else [_Joint(self, *outer) for outer in _outer(layers)]
        with contextlib.ExitStack() as stack:
            for joint in joints:  # before what is watched
                hook = joint.module.register_forward_pre_hook(joint.gather, with_kwargs=True)
                stack.callback(hook.remove)
            watched = stack.enter_context(watching(layers, change, keep_graph=True))
            for joint in joints:  # after it
                stack.callback(joint.module.register_forward_hook(joint.divide).remove)
            yield watched

    def gathered(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the rows of all processes in the order of the batch at hand, without a gradient.

        Args:
            tensor: the rows of this process, as many for each of its samples.

        Raises:
            UserError: if they do not belong to the samples.
        """
        if self.cuts is None:
            return tensor
        samples = self.own.stop - self.own.start
        each, rest = divmod(len(tensor), samples)
        if rest:
            what = f"a VQ layer has {len(tensor)} vectors for {samples} samples"
            raise UserError(what, "run it without torchrun: such samples cannot be divided")
        return self.ranks.joined_rows(tensor, [each * (b - a) for a, b in itertools.pairwise(self.cuts)])


class _Joint:
    """The module of a VQ layer, at which the processes meet."""

    def __init__(self, shares: Shares, module: nn.Module, num_codes: int, dim: int) -> None:
        self.module = module
        self._shares = shares
        self._of_codebook = ((num_codes,), (num_codes, dim))
        self._given: list[torch.Tensor | None] = []

    def gather(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Give the layer the rows of all processes, in each tensor that has as many as z_e."""
        z_e = first_float((args, kwargs))
        if z_e is None or not z_e.ndim:
            self._given.append(None)
            return None
        given: Any = (args, kwargs)
        for tensor in {id(t): t for t in tensors_of(given) if t.ndim and len(t) == len(z_e)}.values():
            every = self._shares.gathered(tensor)
            if tensor.requires_grad:
                every = _Gather.apply(tensor, every, self._shares)  # type: ignore[no-untyped-call]
            given = swap(given, tensor, every)
        self._given.append(first_float(given))
        return given

    def divide(self, _: nn.Module, __: object, output: Any) -> Any:
        """Let the model have the rows of its own samples, in each tensor that has some for every sample."""
        z_e, cuts, own = self._given.pop(), self._shares.cuts, self._shares.own
        if z_e is None or cuts is None:
            return output
        for tensor in {id(t): t for t in tensors_of(output) if t.ndim and len(t) % cuts[-1] == 0}.values():
            rows = tensor.shape == z_e.shape or (is_integer(tensor) and len(tensor) == len(z_e))
            if rows or tuple(tensor.shape) not in self._of_codebook:
                each = len(tensor) // cuts[-1]
                output = swap(output, tensor, tensor[own.start * each : own.stop * each])
        return output


class _Gather(torch.autograd.Function):
    """Gathered rows, of which this process's own have its graph."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, every: torch.Tensor, shares: Shares) -> torch.Tensor:
        each = len(tensor) // (shares.own.stop - shares.own.start)
        ctx.shares, ctx.first, ctx.rows = shares, shares.own.start * each, len(tensor)
        return every.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (whole,) = gradients
        whole = whole.clone()
        ctx.shares.ranks.add_up([whole])
        return whole[ctx.first :][: ctx.rows], None, None


def _outer(layers: Iterable[CapturedLayer]) -> Iterator[tuple[nn.Module, int, int]]:
    """Yield the modules of the layers, each once and none within another, with K and D."""
    found = {m: (one.num_codes, one.view.dim) for one in layers for m in (one.module, *one.shared)}
    inner = {child for module in found for child in module.modules() if child is not module}
    for module, (num_codes, dim) in found.items():
        if module not in inner:
            yield module, num_codes, dim


def _tried(
    model: nn.Module, task: Task, batch: Batch, layers: tuple[CapturedLayer, ...]
) -> tuple[float, list[int | None]]:
    """Return the task loss of a batch in eval mode, and how many rows each layer is called with.

    The loss is NaN where the task fails, and the rows are None where a layer is not called.
    """
    seed_all(0)
    try:
        with in_eval_mode(model), torch.no_grad():
            _, losses, watched = next(passes(model, task, (batch,), layers))
    except (*FAILURES, UserError):
        return math.nan, [0] * len(layers)
    seen = [watched[layer.module] for layer in layers]
    return float(losses.task), [len(w.calls[0].z_e) if w.calls and not w.by_method else None for w in seen]

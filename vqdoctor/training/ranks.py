"""The processes of one training: their number, sums over them, and rank zero's values for all.

torch's launcher starts them. They have a process group of their own, which the model's code does not see: a
layer that adds up its counts by itself, as vector-quantize-pytorch does, would count each vector N times.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, cast

import torch
from torch import nn

from vqdoctor.capture.layer import CapturedLayer
from vqdoctor.core.codec import decode, encode
from vqdoctor.core.errors import UserError
from vqdoctor.core.launcher import Launched
from vqdoctor.models.process_group import TIMEOUT, gpu_of, meeting_place

GO_ON = "--resume goes on from the last epoch, with any number of processes"


class Group(Protocol):
    """The sender of tensors between processes; each call gives an object to wait for."""

    def allreduce(self, tensors: list[torch.Tensor]) -> Any:
        """Add tensors up, in place."""

    def broadcast(self, tensor: torch.Tensor, root: int) -> Any:
        """Give a tensor the values that it has on a process."""

    def allgather(self, outputs: list[list[torch.Tensor]], inputs: list[torch.Tensor]) -> Any:
        """Fill a list with the tensors of all processes."""


class Store(Protocol):
    """The launcher's table of numbers, which outlasts a process."""

    def add(self, key: str, amount: int) -> int:
        """Add to a number, and return it."""


Encoded = TypeVar("Encoded")


class OtherHasTold(Exception):
    """This process ends since another one did, and that one has said why."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranks:
    """This process among those of its training. A single one has nothing to exchange, and does nothing here.

    Attributes:
        rank: its number, from 0.
        size: how many there are.
        group: what sends tensors; None in a single process.
        device: where it takes them from.
        store: the launcher's; None in a single process.
    """

    rank: int = 0
    size: int = 1
    group: Group | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    store: Store | None = None

    @property
    def first(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    def add_up(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace tensors, in place, by their sums over all processes."""
        self._together(tensors, lambda flat: self._wait(lambda group: group.allreduce([flat])))

    def added(self, values: Sequence[float]) -> list[float]:
        """Return the sums of numbers over all processes."""
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        self.add_up([tensor])
        return [float(value) for value in tensor]

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add the gradients of all processes up; a parameter that has none in any of them stays without."""
        if self.size == 1:
            return
        trained = list(parameters)
        known = self.added([float(p.grad is not None) for p in trained])
        trained = [p for p, count in zip(trained, known, strict=True) if count]
        for parameter in trained:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self.add_up([p.grad for p in trained if p.grad is not None])

    @torch.no_grad()
    def as_first(self, tensors: Iterable[torch.Tensor | None]) -> None:
        """Give tensors, in place, the values that they have on rank zero."""
        known = {id(tensor): tensor.detach() for tensor in tensors if tensor is not None}
        self._together(list(known.values()), lambda flat: self._wait(lambda group: group.broadcast(flat, 0)))

    def same_codebooks(self, layers: Iterable[CapturedLayer]) -> None:
        """Give the codebooks, with all that belongs to them, the values of rank zero."""
        if self.size > 1:
            self.as_first(layer.stored(role) for layer in layers for role in layer.tensors)

    @torch.no_grad()
    def same_buffers(self, model: nn.Module) -> None:
        """Give all buffers the values of rank zero; the running moments of a batch norm their mean."""
        if self.size == 1:
            return
        named = [getattr(m, name, None) for m in model.modules() for name in ("running_mean", "running_var")]
        moments = [tensor for tensor in named if isinstance(tensor, torch.Tensor)]
        for moment in moments:
            moment /= self.size
        self.add_up(moments)
        averaged = {id(moment) for moment in moments}
        self.as_first(buffer for buffer in model.buffers() if id(buffer) not in averaged)

    def agreed(self, value: Any) -> Any:
        """Return rank zero's value, of any type that JSON has."""
        if self.size == 1:
            return value
        said = json.dumps(value).encode()
        length = torch.tensor([len(said)])
        self.as_first([length])
        text = torch.frombuffer(bytearray(said), dtype=torch.uint8)
        text = text if self.first else torch.zeros(int(length), dtype=torch.uint8)
        self.as_first([text])
        return json.loads(bytes(text.tolist()))

    def agreed_value(self, value: Encoded) -> Encoded:
        """Return rank zero's value, one of the frozen ones."""
        if self.size == 1:
            return value
        return decode(type(value), self.agreed(encode(value)), "another process's", "")

    @torch.no_grad()
    def joined_rows(self, tensor: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
        """Return the rows of all processes, one after another, without a gradient.

        Args:
            tensor: the rows of this process.
            lengths: how many each of them has.
        """
        sent = tensor.new_zeros((max(lengths), *tensor.shape[1:]), device=self.device)
        sent[: len(tensor)] = tensor
        sent = sent.byte() if sent.dtype == torch.bool else sent
        every = [torch.empty_like(sent) for _ in range(self.size)]
        self._wait(lambda group: group.allgather([every], [sent]))
        return torch.cat([rows[:length] for rows, length in zip(every, lengths, strict=True)]).to(tensor)

    def may_tell(self) -> bool:
        """Whether this process is the first that has to say why the training ends."""
        if self.store is None:
            return True
        try:
            return self.store.add("told", 1) == 1
        except RuntimeError:  # the store has ended with its process
            return self.rank <= 1

    def _together(self, tensors: Sequence[torch.Tensor], send: Callable[[torch.Tensor], None]) -> None:
        """Send tensors, those of a type and device as one, and write the result back."""
        if self.size == 1:
            return
        kinds: dict[tuple[torch.dtype, torch.device], list[torch.Tensor]] = {}
        for tensor in tensors:
            kinds.setdefault((tensor.dtype, tensor.device), []).append(tensor)
        for (dtype, _), some in kinds.items():
            flat = torch.cat([tensor.detach().reshape(-1) for tensor in some])
            sent = (flat.byte() if dtype == torch.bool else flat).to(self.device)
            send(sent)
            ends = itertools.accumulate((tensor.numel() for tensor in some), initial=0)
            for tensor, (start, end) in zip(some, itertools.pairwise(ends), strict=True):
                tensor.detach().copy_(sent[start:end].view(tensor.shape))

    def _wait(self, begin: Callable[[Group], Any]) -> None:
        """Let the processes exchange tensors.

        Raises:
            UserError: if another process has ended, or does not answer.
        """
        assert self.group is not None
        try:
            begin(self.group).wait()
        except RuntimeError as error:
            minutes = TIMEOUT.total_seconds() / 60
            raise UserError(
                f"one of {self.size} processes ended, or gave no answer for {minutes:g} minutes; {GO_ON}"
            ) from error


@contextlib.contextmanager
def joined(launched: Launched) -> Iterator[Ranks]:
    """Give the processes that the launcher started; a single one imports nothing for it.

    Raises:
        OtherHasTold: if this process ends with an error, and another one has said already why.
    """
    if launched.size == 1:
        yield Ranks()
        return
    from torch import distributed

    gpu = gpu_of(launched)
    c10d = cast("Any", distributed)  # its stubs leave these names out
    store = meeting_place(launched)
    place = (store, launched.rank, launched.size)
    if gpu is not None:
        torch.cuda.set_device(gpu)
        options = c10d.ProcessGroupNCCL.Options()
        options._timeout = TIMEOUT
        group: Group = c10d.ProcessGroupNCCL(*place, options)
    else:
        group = c10d.ProcessGroupGloo(*place, TIMEOUT)
    ranks = Ranks(
        rank=launched.rank, size=launched.size, group=group, device=gpu or torch.device("cpu"), store=store
    )
    try:
        yield ranks
    except BaseException as error:
        if not ranks.may_tell():
            raise OtherHasTold from error
        raise

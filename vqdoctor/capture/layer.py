"""One VQ layer at work in a model: where it is, what its calls show, and its codes read and written."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import torch
from torch import nn
from torch.nn import functional

from vqdoctor.capture.call import Call
from vqdoctor.capture.masks import data_positions
from vqdoctor.capture.reader import Reader
from vqdoctor.capture.vectors import rows
from vqdoctor.capture.watch import Watch, watch_each
from vqdoctor.layouts.view import LEAST_COUNT, QuantizerView
from vqdoctor.models.lookups import attach
from vqdoctor.models.task import Batch, Losses, Task
from vqdoctor.vq.codebook import Codebook
from vqdoctor.vq.kmeans import nearest

NO_MODULE = "no module around this codebook maps a float input to a float output of its shape"

Watched = Mapping[nn.Module, Watch]
"""The calls of the modules of interest in one pass."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CapturedLayer:
    """One VQ layer of a model, or of a copy of it.

    Attributes:
        view: its arrays and its form.
        model: the model.
        tensors: role ("codebook", "counts", "sums", "initted", …) to the name of the model's tensor.
        reader: reads its calls.
        path: of the module whose input is z_e and whose output is z_q, or of the nearest to one; None if the
            layer was not found.
        lookup_path: of the module in it that gets the vectors in the codebook's own dimension; None if no
            module does.
        shared_paths: of the modules of further layers that use the very same codebook.
        gap: why no gradient can be judged there; "" where it can.
        maps: whether z_e and z_q are seen there; else its codes alone.
        hides_codes: whether its module shows neither its codes nor the vectors that it compares with them.
        closed: whether its module gives z_q and passes no gradient to z_e, in a pass that could.
        inline: whether that module is a stand-in, for a table whose codes the model looks up itself.
        around: whether the model's estimator stands around the lookup, on vectors of another form.
    """

    view: QuantizerView
    model: nn.Module
    tensors: Mapping[str, str] = field(default_factory=dict)
    reader: Reader
    path: str | None = None
    lookup_path: str | None = None
    shared_paths: tuple[str, ...] = ()
    gap: str = NO_MODULE
    maps: bool = False
    hides_codes: bool = False
    closed: bool = False
    inline: bool = False
    around: bool = False

    @property
    def name(self) -> str:
        """Its name."""
        return self.view.name

    @property
    def num_codes(self) -> int:
        """K."""
        return self.view.num_codes

    def on(self, model: nn.Module) -> CapturedLayer:
        """Return the same layer of a copy of the model."""
        if self.inline:
            self.stand_in(model)
        return replace(self, model=model)

    def stand_in(self, model: nn.Module) -> str:
        """Put a stand-in for the layer into a copy of the model, if there is none yet; return its path."""
        return attach(
            model,
            self.tensors["codebook"],
            by_logits=self.view.lookup == "logits",
            around=self.around,
            transposed=self.view.place.transposed,
        )

    @cached_property
    def module(self) -> nn.Module:
        """The module whose input is z_e and whose output is z_q, or the nearest to one."""
        assert self.path is not None
        return self.model.get_submodule(self.path)

    @cached_property
    def lookup(self) -> nn.Module | None:
        """The module in it that gets the vectors in the codebook's own dimension; None if none does."""
        return None if self.lookup_path is None else self.model.get_submodule(self.lookup_path)

    @cached_property
    def shared(self) -> tuple[nn.Module, ...]:
        """The modules of further layers that use the very same codebook."""
        return tuple(map(self.model.get_submodule, self.shared_paths))

    def stored(self, role: str = "codebook") -> torch.Tensor | None:
        """Return the model's tensor of that role as it is now (a forward pass may exchange it), or None."""
        path, _, attribute = self.tensors.get(role, "").rpartition(".")
        try:
            found = getattr(self.model.get_submodule(path), attribute, None) if attribute else None
        except AttributeError:
            return None
        return found if isinstance(found, torch.Tensor) else None

    @property
    def codebook(self) -> Codebook[torch.Tensor]:
        """Its arrays as views of the model's own tensors: what is written there is written to the model."""
        place = self.view.place
        roles = ("codebook", "counts", "sums", "initted")
        codes, counts, sums, flag = (None if (t := self.stored(r)) is None else t.detach() for r in roles)
        return Codebook(
            codes=None if self.view.derived or codes is None else place.codes(codes),
            counts=None if counts is None else place.counts(counts),
            sums=None if sums is None else place.codes(sums),
            smoothing=self.view.smoothing,
            initialised=flag,
            unit=self.view.lookup == "cosine",
        )

    @torch.no_grad()
    def codes(self) -> torch.Tensor:
        """Return a copy of the codes, float32 [K, D]."""
        stored = self.codebook
        if stored.codes is not None:
            return stored.codes.float().clone()
        assert stored.sums is not None and stored.counts is not None
        return stored.sums.float() / stored.counts.float().clamp_min(LEAST_COUNT).unsqueeze(1)

    @torch.no_grad()
    def write(
        self,
        rows: torch.Tensor,
        codes: torch.Tensor,
        counts: torch.Tensor | float | None = None,
        optimizer: torch.optim.Optimizer | None = None,
    ) -> None:
        """Write codes with all that belongs to them: see `vq.codebook.Codebook.write`.

        Args:
            rows: which codes, int64 [n].
            codes: float [n, D].
            counts: their EMA counts, [n] or one for all; None keeps what is stored.
            optimizer: the optimizer that may remember gradients of these rows.
        """
        stored = self.stored()
        assert stored is not None
        moments = () if optimizer is None else self.moments(optimizer)
        self.codebook.write(rows, codes.to(stored.device), counts, moments)

    def moments(self, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
        """Return the optimizer's moments of the codes, each as a view [K, D] of its own tensor."""
        stored = self.stored()
        return [
            self.view.place.codes(value)
            for parameter, state in optimizer.state.items()
            if stored is not None and (parameter is stored or parameter.data_ptr() == stored.data_ptr())
            for value in state.values()
            if isinstance(value, torch.Tensor) and value.shape == stored.shape
        ]

    def calls(self, watched: Watched) -> list[Call]:
        """Return the layer's calls of a pass that gave a z_q."""
        return watched[self.module].mapped

    def vectors(self, watched: Watched) -> torch.Tensor | None:
        """Return the vectors that a pass asked the codebook for, float32 [N, D]; None if unseen."""
        calls = [] if self.lookup is None else self.reader.lookups(watched[self.lookup])
        for call in calls:
            if (asked := self.reader.looked_up(call)) is not None:
                return torch.from_numpy(asked).to(call.z_e.device)
        for call in (*calls, *self.calls(watched)):
            vectors = rows(call.z_e.detach(), self.reader.axis(call)).flatten(0, 1).float()
            if vectors.shape[1] == self.view.dim:
                return vectors
        return None

    def chosen(self, watched: Watched, codes: torch.Tensor | None = None) -> torch.Tensor | None:
        """Return the codes that a pass chose, int64 [N]; None where they are unknown.

        They are the layer's own, or else the nearest.

        Args:
            watched: the calls of the pass.
            codes: the codes [K, D] that it looked up; None for those of now, which a pass may have moved.
        """
        for call in self.calls(watched):
            given = self.reader.given(call)
            if given is not None:
                return given.flatten()
        by_distance = self.view.lookup != "logits" and "codebook" in self.view.keys
        vectors = self.vectors(watched) if by_distance else None
        if vectors is None:
            return None
        if self.view.lookup == "cosine":
            vectors = functional.normalize(vectors, dim=1)
        return nearest(vectors, self.codes() if codes is None else codes)[0]

    def only_data(self, values: torch.Tensor, watched: Watched, mask: torch.Tensor | None) -> torch.Tensor:
        """Return the values [N, …] of a pass's vectors without those of padding; all where N is another.

        Args:
            values: one for each vector of the layer's first call, such as codes or the vectors themselves.
            watched: the calls of the pass.
            mask: the task's mask; None where all positions are data.

        Raises:
            UserError: if the mask has another number of samples or positions than the layer.
        """
        call = next(iter(self.calls(watched)), None)
        if mask is None or call is None:
            return values
        kept = data_positions(None, mask.cpu(), *rows(call.z_e, self.reader.axis(call)).shape[:2])
        return values if kept is None or kept.numel() != len(values) else values[kept.flatten()]

    def counts(
        self,
        watched: Watched,
        codes: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
    ) -> torch.Tensor | None:
        """Return how often a pass chose each code, float64 [K]; None where it is unknown: see `chosen`.

        Positions that are masked, by the layer or by the task's mask, are left out.
        """
        chosen = self.chosen(watched, codes)
        if chosen is None:
            return None
        chosen = self.only_data(chosen, watched, mask)
        return torch.bincount(chosen[chosen >= 0], minlength=self.num_codes).double().cpu()


Change = Callable[[CapturedLayer, Call], torch.Tensor | None]
"""Layer and call in; the tensor that the model gets in place of z_q out, or None where that stays."""


_MOVED = ("codebook", "counts", "sums")
"""The tensors that an EMA writes."""


@contextlib.contextmanager
def watching(
    layers: Iterable[CapturedLayer], change: Change | None = None, *, keep_graph: bool = False
) -> Iterator[Watched]:
    """Watch layers of one model in one pass; see `capture.watch`.

    Args:
        layers: the layers that were found.
        change: gives the tensor that the model gets in place of a layer's z_q. Of several layers in one
            module, as heads, the first is asked; it is asked for every level that uses its codebook.
        keep_graph: whether z_e and z_q of the layers stay in the autograd graph.
    """
    layers = tuple(layers)
    own = {layer.module: None for layer in layers}
    further = [m for layer in layers for m in (layer.lookup, *layer.shared) if m is not None and m not in own]
    mapping = [layer for layer in reversed(layers) if layer.maps]
    first = {module: layer for layer in mapping for module in layer.shared}
    first |= {layer.module: layer for layer in mapping}
    changes = {} if change is None else {module: partial(change, layer) for module, layer in first.items()}
    with watch_each(own, changes, keep_graph=keep_graph) as seen, watch_each(further, changes) as others:
        yield {**seen, **others}


def passes(
    model: nn.Module,
    task: Task,
    batches: Iterable[Batch],
    layers: tuple[CapturedLayer, ...],
    change: Change | None = None,
) -> Iterator[tuple[Batch, Losses, Watched]]:
    """Run a model and its task over batches; yield each batch, its losses, and what the layers did.

    In eval mode every batch meets the same codes: a layer that updates them all the same is put back.
    """
    judged = () if model.training else layers
    kept = {(layer, role): _copied(layer, role) for layer in judged for role in _MOVED}
    for batch in batches:
        with watching(layers, change) as watched:
            losses = task.losses(model, batch)
        for (layer, role), before in kept.items():
            now = layer.stored(role)
            if before is not None and now is not None and not torch.equal(now, before):
                now.detach().copy_(before)
        yield batch, losses, watched


def _copied(layer: CapturedLayer, role: str) -> torch.Tensor | None:
    """Return a copy of a stored tensor; None where there is none, or the layer is still to be initialised."""
    stored, flag = layer.stored(role), layer.stored("initted")
    ready = flag is None or bool(flag.all())
    return stored.detach().clone() if stored is not None and ready else None


def bypass(layer: CapturedLayer, call: Call) -> torch.Tensor:
    """Let the model have z_e in place of z_q: the same model without VQ."""
    assert call.z_q is not None
    return call.z_e if call.z_e.shape == call.z_q.shape else call.z_q


def bypassable(model: nn.Module, task: Task, batch: Batch, layers: tuple[CapturedLayer, ...]) -> bool:
    """Return whether z_e has the shape of z_q at every layer, so that the model runs without VQ."""
    with torch.no_grad():
        _, _, watched = next(passes(model, task, (batch,), layers))
    calls = [call for layer in layers for call in layer.calls(watched)]
    return bool(calls) and all(c.z_q is not None and c.z_e.shape == c.z_q.shape for c in calls)

"""The EMA of a layer, taken over: after each step its codes are those of a sound rule.

The layer's own rule runs in its forward pass and is overwritten after the step. So the user's source stays as
it is, and the file that is written holds codes that this source looks up in eval mode.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from vqdoctor.capture.call import FAILURES, Call
from vqdoctor.capture.decay import own_decay
from vqdoctor.capture.layer import CapturedLayer, Watched, watching
from vqdoctor.capture.reader import Codes
from vqdoctor.models.task import Batch, Task
from vqdoctor.models.untouched import in_eval_mode
from vqdoctor.vq.ema import divisor

DECAY = 0.99
"""EMA decay where neither the plan nor the layer has one: that of van den Oord et al. 2017."""
_FACTOR = 8.0
"""By how much vectors are made longer, and shorter, to see whether the layer compares their lengths."""
_TIES = 0.01
"""Share of vectors that may take another code although only directions are compared: those between two."""
_TINY = 1e-12


@dataclass(kw_only=True, eq=False)
class SoundEMA:
    """Takes over the EMA of one layer.

    The sums are not kept apart: they are the codes times the smoothed counts, as after every sound update.

    Attributes:
        layer: the layer.
        decay: the EMA decay.
        before: the codes [K, D] and counts [K] before the forward pass; None where the layer is about to
            initialise itself.
        counts: EMA counts [K] of a layer that stores none; None before the first step.
    """

    layer: CapturedLayer
    decay: float
    before: tuple[torch.Tensor, torch.Tensor | None] | None = None
    counts: torch.Tensor | None = None

    @classmethod
    def of(cls, layer: CapturedLayer, decay: float | None) -> SoundEMA:
        """Return the takeover of a layer at that decay; None is the layer's own."""
        return cls(layer=layer, decay=decay or own_decay(layer) or DECAY)

    @torch.no_grad()
    def before_step(self) -> None:
        """Remember the codebook, which the forward pass will overwrite."""
        stored = self.layer.codebook
        if stored.initialised is not None and not bool(stored.initialised.all()):
            self.before = None
            return
        counts = self.counts if stored.counts is None else stored.counts.float().clone()
        self.before = (self.layer.codes(), counts)

    @torch.no_grad()
    def after_step(self, watched: Watched) -> None:
        """Write the codes, counts and sums of a sound rule.

        c ← γ c + (1 − γ) n, S ← γ S + (1 − γ) Σz, and a code is S over the smoothed c; a code that nothing
        ever chose stays where it is.
        """
        if self.before is None:
            return
        codes, counts = self.before
        every = torch.arange(len(codes))
        self.layer.write(every, codes, counts)  # the codes that the pass looked its vectors up among
        vectors, chosen = self.layer.vectors(watched), self.layer.chosen(watched)
        if vectors is None or chosen is None or len(chosen) != len(vectors):
            return
        seen = (chosen >= 0) & torch.isfinite(vectors).all(dim=1)
        vectors, chosen = vectors[seen].to(codes), chosen[seen].to(codes.device)
        if not len(vectors):
            return
        found = torch.bincount(chosen, minlength=len(codes)).to(codes)
        if counts is None:
            counts = torch.full_like(found, len(vectors) / len(codes))
        smoothing = self.layer.view.smoothing
        sums = torch.zeros_like(codes).index_add_(0, chosen, vectors)
        sums = (codes * _smoothed(counts, smoothing)).lerp(sums, 1.0 - self.decay)
        self.counts = counts.lerp(found, 1.0 - self.decay)
        mass = _smoothed(self.counts, smoothing)
        self.layer.write(every, torch.where(mass > _TINY, sums / mass.clamp_min(_TINY), codes), self.counts)

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a resumed run."""
        return {"counts": self.counts, "decay": self.decay}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        self.counts, self.decay = state["counts"], state["decay"]


def _smoothed(counts: torch.Tensor, smoothing: float | None) -> torch.Tensor:
    """Return the divisors of the sums, [K, 1]; zero before the first vector."""
    return (divisor(counts, smoothing) if bool(counts.any()) else counts).unsqueeze(1)


@torch.no_grad()
def takes_directions(
    model: torch.nn.Module, task: Task, batch: Batch, layers: tuple[CapturedLayer, ...]
) -> tuple[CapturedLayer, ...]:
    """Return the layers that put their vectors on the unit sphere before the lookup.

    Each layer is asked in eval mode for its codes of a batch's vectors, made longer and made shorter, with a
    codebook of short and long codes in those directions. A Euclidean lookup of the vectors as they are has
    long codes for long vectors; a lookup of directions has the same codes for both.
    """
    found = []
    with in_eval_mode(model):
        with watching(layers) as watched:
            task.losses(model, batch)
        for layer in layers:
            vectors, calls = layer.vectors(watched), layer.calls(watched)
            if vectors is None or not calls or not layer.view.writable:
                continue
            stored = layer.codebook
            roles = (stored.codes, stored.counts, stored.sums, stored.initialised)
            kept = [(tensor, tensor.clone()) for tensor in roles if tensor is not None]
            rows = torch.arange(layer.num_codes)
            lengths = torch.where(rows % 2 == 0, 0.5, 2.0).unsqueeze(1)
            layer.write(rows, vectors.cpu()[(rows // 2) % len(vectors)] * lengths)
            long, short = (_answer(layer, calls[0], factor) for factor in (_FACTOR, 1 / _FACTOR))
            for tensor, value in kept:
                tensor.copy_(value)
            if long is not None and short is not None and float((long != short).mean()) <= _TIES:
                found.append(layer)
    return tuple(found)


def _answer(layer: CapturedLayer, call: Call, factor: float) -> Codes | None:
    """Return the codes of a call's vectors made longer by a factor; None where the layer cannot be called.

    A layer that its model uses through methods (Mimi) has no forward.
    """
    try:
        return layer.reader.codes(call.again(0, lambda z_e: z_e * factor))
    except FAILURES:
        return None

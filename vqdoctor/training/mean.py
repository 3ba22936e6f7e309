"""The mean of a model over the last steps: by it a training is judged, and it is what a training gives."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from vqdoctor.capture.layer import CapturedLayer
from vqdoctor.training.ranks import Ranks
from vqdoctor.training.start import stored_ids

REACH = 0.1
"""Share of the steps so far that the mean looks back over: polynomial-decay averaging (Shamir and Zhang 2013,
arXiv:1212.1824). A fixed share knows neither how long an epoch is nor how many there will be."""


@dataclass(kw_only=True, eq=False)
class MeanModel:
    """A weighted mean of what the steps made of a model, which weighs the last ones most.

    A constant learning rate leaves the weights moving around a good place, and their mean lies nearer to it
    (Polyak and Juditsky 1992; Izmailov et al. 2018, arXiv:1803.05407). In it are the trained parameters and
    the statistics of batch norms. All else is as the last step left it: a code that is revived jumps, and
    the counts and sums of an EMA, which is a mean already, belong to its codes.

    A parameter is trained where it was so before the first step: a step of a GAN freezes a part for a while.

    Attributes:
        model: the model in training.
        layers: its VQ layers.
        ranks: the processes that train it together, each with statistics of its own batches.
        steps: optimizer steps in the mean.
    """

    model: torch.nn.Module
    layers: tuple[CapturedLayer, ...]
    ranks: Ranks = field(default_factory=Ranks)
    steps: int = 0
    _values: dict[str, torch.Tensor] = field(init=False, default_factory=dict)
    _trained: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        """Note which parameters are trained."""
        written = stored_ids(self.layers)
        named = self.model.named_parameters()
        self._trained = frozenset(name for name, p in named if p.requires_grad and id(p) not in written)

    def restart(self) -> None:
        """Forget all steps so far."""
        self.steps, self._values = 0, {}

    @torch.no_grad()
    def after_step(self) -> None:
        """Take the model as it is into the mean."""
        share = 1 / (1 + REACH * self.steps)
        self.steps += 1
        for name, tensor in self._averaged():
            now = tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32))
            if name in self._values:
                self._values[name].lerp_(now, share)
            else:
                self._values[name] = now.clone()

    @contextlib.contextmanager
    def instead(self) -> Iterator[None]:
        """Let the model be its mean while the context lasts."""
        kept = {name: tensor.detach().clone() for name, tensor in self._averaged() if name in self._values}
        self._put()
        try:
            yield
        finally:
            self._write(kept)

    def take(self) -> None:
        """Let the model be its mean from now on."""
        self._put()
        self.restart()

    def _put(self) -> None:
        """Let the model be its mean, the same one in all processes."""
        self._write(self._values)
        self.ranks.same_buffers(self.model)

    def _averaged(self) -> Iterator[tuple[str, torch.Tensor]]:
        yield from ((name, p) for name, p in self.model.named_parameters() if name in self._trained)
        for path, module in self.model.named_modules():
            if isinstance(module, _BatchNorm) and module.track_running_stats:
                statistics = module.named_buffers(path, recurse=False)
                yield from ((name, values) for name, values in statistics if values.is_floating_point())

    @torch.no_grad()
    def _write(self, values: Mapping[str, torch.Tensor]) -> None:
        for name, tensor in self._averaged():
            if name in values:
                tensor.copy_(values[name])

    def state_dict(self) -> dict[str, Any]:
        """Return the state that a resumed run needs, beside the model's own."""
        return {"steps": self.steps, "values": self._values}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        self.steps = state["steps"]
        self._values = {name: value.clone() for name, value in state["values"].items()}

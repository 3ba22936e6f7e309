"""The examined model: the checkpoint in it, its task, and where its codebooks are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from vqdoctor.layouts import QuantizerView
from vqdoctor.models.guarded_task import GuardedTask


@dataclass(frozen=True, kw_only=True, eq=False)
class ExaminedModel:
    """A model to run, and the places of the file's tensors in it.

    Attributes:
        model: with the checkpoint in it; only copies of it are run.
        task: guarded: every call of the user's code that fails is a `UserError`.
        views: the VQ layers that the model has.
        raw_keys: name of a tensor in a copy of the model to its key in the file.
        absent: names of VQ layers of the file that the model does not have.
        load_notes: the tensors that the file or the model lacks, one line each.
        lacking: names of the model that a training writes and the file lacks.
        left_out: paths of residual levels that the file lacks; their codes are zero.
    """

    model: torch.nn.Module
    task: GuardedTask
    views: tuple[QuantizerView, ...]
    raw_keys: Mapping[str, str]
    absent: tuple[str, ...] = ()
    load_notes: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def vq_loss_unknown(self) -> bool:
        """Whether a default task has run and recognised no VQ loss."""
        return bool(getattr(self.task, "vq_loss_unknown", False))

    @property
    def notes(self) -> tuple[str, ...]:
        """The notes on the load, and those of the task once it has run; one line each."""
        return (*self.load_notes, *self.task.notes)

    def as_stored(self, view: QuantizerView) -> QuantizerView:
        """Return a view of a layer found in the model with the keys that its tensors have in the file."""
        return replace(view, keys={role: self.raw_keys.get(key, key) for role, key in view.keys.items()})

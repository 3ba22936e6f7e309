"""The training as a checkpoint remembers it: its optimizers, its record, and the notes of its fixes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from vqdoctor.checkpoint import Checkpoint
from vqdoctor.core.evidence import TrainingRecord
from vqdoctor.layouts.state_dict import StateDict, state_dicts
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.saved.beside import OPTIMIZERS, is_trainers, opened, settings_beside
from vqdoctor.saved.decay import proven_decay
from vqdoctor.saved.optimizer import SavedOptimizer, Slot, saved_optimizers
from vqdoctor.saved.record import as_retrained, read_record
from vqdoctor.saved.scores import Scores, read_scores

ESTIMATED_COUNTS = "estimated_counts"
"""Where a fix notes the keys of the EMA counts that it wrote without a training to count them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SavedTraining:
    """The training as a checkpoint remembers it, read when first asked for.

    Attributes:
        checkpoint: the opened file.
        kept: layer name to the EMA decay that its module keeps, of the layers of a model that is at hand.
    """

    checkpoint: Checkpoint
    kept: Mapping[str, float] = field(default_factory=dict)

    @cached_property
    def optimizers(self) -> tuple[SavedOptimizer, ...]:
        """The optimizer states in the file, nearest to the root first, or else those of a file beside it."""
        return saved_optimizers(self.checkpoint.tree) or self._beside

    @cached_property
    def _beside(self) -> tuple[SavedOptimizer, ...]:
        """The optimizer that transformers' Trainer or accelerate saved beside the weights."""
        folder = self.checkpoint.path.parent
        names = OPTIMIZERS if is_trainers(self.checkpoint) else ()
        trees = (tree for name in names if (tree := opened(folder / name)) is not None)
        return next((saved_optimizers(tree) for tree in trees), ())

    @property
    def in_order(self) -> bool:
        """Whether the file keeps the model's order; safetensors sorts tensors by type and name."""
        parts = self.checkpoint.parts or (self.checkpoint,)
        return all(part.container != "safetensors" for part in parts)

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        """The parameters that these optimizers list."""
        return tuple(slot for optimizer in self.optimizers for slot in optimizer.slots)

    @cached_property
    def models(self) -> tuple[StateDict, ...]:
        """The state dicts of models in the file."""
        return tuple(state_dicts(self.checkpoint.tensors))

    @cached_property
    def record(self) -> TrainingRecord:
        """The record of the last training, in the file and in what a trainer left beside it."""
        beside = tuple(settings_beside(self.checkpoint))
        record = read_record(self.checkpoint.tree, self.optimizers, beside)
        return as_retrained(record, self.checkpoint.history)

    @cached_property
    def scores(self) -> Scores:
        """The model's success as the file, and a trainer's state beside it, record it."""
        return read_scores(self.checkpoint.tree, self.models, self.checkpoint.path)

    def decay(self, view: QuantizerView) -> float | None:
        """Return the decay of a layer's EMA; None if unknown.

        It is the recorded one, or what the counts prove, or what the layer's own module keeps.
        """
        if self.record.decay is not None:
            return self.record.decay
        if view.name not in self._proven:
            counts = view.counts
            proven = None if counts is None else proven_decay(counts, self.record.updates)
            self._proven[view.name] = self.kept.get(view.name) if proven is None else proven
        return self._proven[view.name]

    def start_weight(self, view: QuantizerView) -> float | None:
        """Return d^t, the weight that the start of a layer's EMA still has; None where d or t is unknown."""
        decay, updates = self.decay(view), self.record.updates
        return None if decay is None or updates is None else float(decay**updates)

    @cached_property
    def _proven(self) -> dict[str, float | None]:
        return {}

    @cached_property
    def estimated_counts(self) -> frozenset[str]:
        """Keys of EMA counts that a fix of the file wrote, and that no training has counted since."""
        notes = self.checkpoint.history
        keys = notes[-1].get(ESTIMATED_COUNTS) if notes else None
        listed = keys if isinstance(keys, list) else []
        return frozenset(key for key in listed if isinstance(key, str))

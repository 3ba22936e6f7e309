"""The monitor as a callback of Hugging Face's Trainer: `VQMonitor().join(trainer)`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from vqdoctor.engine.monitor import Monitor, MonitorOptions, Stopped
from vqdoctor.engine.writers import Writer, writer_of
from vqdoctor.models.task import Task


class VQMonitor(TrainerCallback):
    """Watches the VQ layers of a Trainer's model, on all ranks, and one reports; a stop is the trainer's own.

    The figures join the next line that the trainer logs, as "vq/LAYER/FIGURE".
    """

    def __init__(self, task: Task | None = None, **options: Unpack[MonitorOptions]) -> None:
        """Take the arguments of `vqdoctor.Monitor` without the model, the optimizer and the start."""
        self._task, self._options = task, options
        self._monitor: Monitor | None = None
        self._figures: dict[str, float] = {}
        self._others: list[TrainerCallback] = []

    def join(self, trainer: Trainer) -> VQMonitor:
        """Become the first callback of a trainer, before those that write what is logged."""
        self._others = trainer.callback_handler.callbacks
        self._others.insert(0, self)
        return self

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Start watching."""
        optimizer = kwargs.get("optimizer")
        self._monitor = Monitor(
            kwargs["model"],
            self._task,
            optimizer=getattr(optimizer, "optimizer", optimizer),  # accelerate wraps it
            start=state.global_step,
            writer=Writer(
                scalars=lambda figures, step: self._figures.update(figures), histogram=self._histogram
            ),
            **self._options,
        )
        self._monitor.begin()

    def _histogram(self, name: str, bins: Sequence[float], step: int) -> None:
        """Write a histogram to the trainer's TensorBoard, where it has one."""
        boards = [getattr(other, "tb_writer", None) for other in self._others]
        for writer in [writer_of(board) for board in boards if board is not None]:
            assert writer.histogram is not None
            writer.histogram(name, bins, step)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Tell the monitor of an optimizer step."""
        if self._monitor is not None:
            try:
                self._monitor.step(step=state.global_step)
            except Stopped:
                control.should_training_stop = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Add the figures of the newest interval."""
        kwargs["logs"].update(self._figures)
        self._figures = {}

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop watching."""
        if self._monitor is not None:
            self._monitor.end()

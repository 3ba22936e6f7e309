"""The monitor as a callback of Hugging Face's Trainer: `VQMonitor().join(trainer)`."""

from __future__ import annotations

from typing import Any, Unpack

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from vqdoctor.engine.monitor import Monitor, MonitorOptions, Stopped
from vqdoctor.models.task import Task


class VQMonitor(TrainerCallback):
    """Watches the VQ layers of a Trainer's model, on rank zero; a stop is the trainer's own.

    The figures join the next line that the trainer logs, as "vq/LAYER/FIGURE".
    """

    def __init__(self, task: Task | None = None, **options: Unpack[MonitorOptions]) -> None:
        """Take the arguments of `vqdoctor.Monitor` without the model, the optimizer and the start."""
        self._task, self._options = task, options
        self._monitor: Monitor | None = None
        self._figures: dict[str, float] = {}

    def join(self, trainer: Trainer) -> VQMonitor:
        """Become the first callback of a trainer, before those that write what is logged."""
        trainer.callback_handler.callbacks.insert(0, self)
        return self

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Start watching."""
        if state.is_world_process_zero:
            optimizer = kwargs.get("optimizer")
            self._monitor = Monitor(
                kwargs["model"],
                self._task,
                optimizer=getattr(optimizer, "optimizer", optimizer),  # accelerate wraps it
                start=state.global_step,
                log=lambda figures, step: self._figures.update(figures),
                **self._options,
            )
            self._monitor.begin()

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

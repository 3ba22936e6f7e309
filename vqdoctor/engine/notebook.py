"""`vqdoctor.examine`, for scripts and notebooks: a report that shows itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Literal

from vqdoctor.checks import all_checks
from vqdoctor.core import report as core
from vqdoctor.core.errors import UserError
from vqdoctor.engine.examine import examine as examine_quietly
from vqdoctor.engine.settings import Settings, UserModel
from vqdoctor.render import RenderOptions, all_renderers

if TYPE_CHECKING:
    import torch

    from vqdoctor.models.task import Task


class Report(core.Report):
    """The report, which a notebook shows as Markdown and `print` as text."""

    def _repr_markdown_(self) -> str:
        return all_renderers()["markdown"].render(self, _options())

    def __str__(self) -> str:
        return all_renderers()["rich"].render(self, _options())


def _options() -> RenderOptions:
    return RenderOptions(names={check.code: check.name for check in all_checks()})


def examine(
    model_or_path: torch.nn.Module | str | os.PathLike[str],
    batch: Any = None,
    *,
    losses: Callable[[Any, Any], Any] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    task: Task | str | None = None,
    model: Any = None,
    model_args: Mapping[str, Any] | None = None,
    vq_loss: str | None = None,
    task_loss: str | None = None,
    trained_vq_weight: float | None = None,
    select: Sequence[str] = (),
    ignore: Sequence[str] = (),
    limits: Mapping[str, Mapping[str, float]] | None = None,
    layer: str | None = None,
    codebook_key: str | None = None,
    layout: Literal["kd", "dk"] | None = None,
    verify: bool = False,
    histogram: bool = False,
    batches: int | None = None,
    probe_steps: int = 0,
    device: str = "auto",
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> Report:
    """Examine a checkpoint or a live model; neither is changed, and the random state is as before.

    Args:
        model_or_path: a model as it stands in the script, or a checkpoint file.
        batch: x, (x, y), a mapping with x (and y), a DataLoader, or a batch file; with `losses` anything
            that `losses` understands. Dumps of z_e and/or indices, by these names, need no model.
        losses: losses(model, batch) -> `vqdoctor.Losses` or any object with its fields. Without it the
            losses are made of the model's usual outputs; the report's notes say of which.
        optimizer: the model's optimizer, whose memory tells more.
        task: a `vqdoctor.Task` in place of batch and losses, or where to import one.
        model: what builds the model of a checkpoint file: a function, where to import it, or "hf".
        model_args: its arguments.
        vq_loss: the model's output that is the VQ loss.
        task_loss: "ce", "mse", or the model's output that is the task loss.
        trained_vq_weight: the weight that the training gives the VQ loss; None is unknown, not one.
        select: codes of checks to run, or beginnings of codes; empty is all.
        ignore: codes of checks to leave out.
        limits: changed limits, by code and name.
        layer: examine only this VQ layer.
        codebook_key: take this tensor for the codebook.
        layout: "kd" or "dk", how it lies.
        verify: read and check every byte of the file.
        histogram: put the usage of every code into the report.
        batches: how many batches of a split are run.
        probe_steps: training steps to take on a copy, for a look at the dynamics.
        device: "auto", "cpu", "cuda" or "mps".
        seed: seed of all that is drawn.
        progress: told in a few words what is being done.

    Raises:
        UserError: in one clear line, if something cannot be read or the user's code fails.
    """
    path = model_or_path if isinstance(model_or_path, str | os.PathLike) else None
    if path is None and model is not None:
        raise UserError("two models", "model= is for a checkpoint file")
    report = examine_quietly(
        path,
        data=batch,
        user_model=UserModel(
            task=task,
            model=model if path is not None else model_or_path,
            model_args=dict(model_args or {}),
            losses=losses,
            optimizer=optimizer,
            vq_loss=vq_loss,
            task_loss=task_loss,
            trained_vq_weight=trained_vq_weight,
        ),
        settings=Settings(
            select=tuple(select),
            ignore=tuple(ignore),
            limits=limits or {},
            verify=verify,
            seed=seed,
            layer=layer,
            codebook_key=codebook_key,
            orientation=layout,
            histogram=histogram,
            device=device,
            batches=batches,
            probe_steps=probe_steps,
        ),
        progress=progress,
    )
    return Report(**{field.name: getattr(report, field.name) for field in fields(report)})

"""`vqdoctor.examine`, for scripts and notebooks: a report that shows itself."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from vqdoctor.checks import all_checks
from vqdoctor.core import report as core
from vqdoctor.core.configure import from_keywords
from vqdoctor.core.errors import UserError
from vqdoctor.core.settings import options as options_of
from vqdoctor.engine.examine import examine as examine_quietly
from vqdoctor.render import RenderOptions, renderer_of

if TYPE_CHECKING:
    import torch


class Report(core.Report):
    """The report, which a notebook shows as Markdown and `print` as text."""

    def _repr_markdown_(self) -> str:
        return _rendered(self, "markdown")

    def __str__(self) -> str:
        return _rendered(self, "rich")

    def __repr__(self) -> str:
        of = "a live model" if self.checkpoint is None else self.checkpoint.path
        found = ", ".join(dict.fromkeys(finding.code for finding in self.roots())) or "no finding"
        return f"<vqdoctor.Report of {of}: {self.verdict}, {found}>"


def _rendered(report: core.Report, format: str) -> str:
    options = RenderOptions(names={check.code: check.name for check in all_checks()})
    return renderer_of(format).render(report, options)


def examine(
    model_or_path: torch.nn.Module | str | os.PathLike[str],
    batch: object = None,
    *,
    losses: Callable[..., object] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    progress: Callable[[str], None] | None = None,
    **options: object,
) -> Report:
    """Examine a checkpoint or a live model; neither is changed, and the random state is as before.

    Args:
        model_or_path: a model of the running script, or a checkpoint file.
        batch: x, (x, y), a mapping with x (and y), a DataLoader, or a batch file; with `losses` anything
            that `losses` understands. Dumps of z_e and/or indices, by these names, need no model.
        losses: losses(model, batch) -> `vqdoctor.Losses` or any object with its fields. Without it the
            losses are made of the model's usual outputs; the report's notes say of which.
        optimizer: the model's optimizer, whose memory is evidence too.
        progress: gets each step in a few words.
        options: the options of `vqdoctor inspect` by their names; objects may take the place of text: a Task,
            a model or the function that builds one, a mapping of arguments or of limits.

    Raises:
        UserError: in one clear line, if something cannot be read or the user's code fails.
        TypeError: if there is no such option.
    """
    path = model_or_path if isinstance(model_or_path, str | os.PathLike) else None
    objects: dict[str, Any] = {"losses": losses, "optimizer": optimizer}
    if path is None:
        if options.get("model") is not None:
            raise UserError("two models", "model= is for a checkpoint file")
        objects["model"] = model_or_path
    settings, user_model = from_keywords("examine", options, objects)
    report = examine_quietly(path, data=batch, user_model=user_model, settings=settings, progress=progress)
    return Report(**{field.name: getattr(report, field.name) for field in fields(report)})


def _declare_keywords() -> None:
    """Give `examine` the signature and the docs of its options, for `help` and notebooks."""
    plain = [p for p in inspect.signature(examine).parameters.values() if p.name != "options"]
    lines = []
    for option in options_of("examine"):
        name, default = option.name.replace("-", "_"), getattr(option.home, option.field, None)
        plain.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default))
        lines.append(f"    {name}: {option.help}")
    examine.__signature__ = inspect.Signature(plain, return_annotation="Report")  # type: ignore[attr-defined]
    examine.__doc__ = f"{inspect.cleandoc(examine.__doc__ or '')}\n\nOptions:\n" + "\n".join(lines)


_declare_keywords()

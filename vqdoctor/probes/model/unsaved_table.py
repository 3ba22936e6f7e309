"""Codes at work that no state dict holds: a buffer that is not persistent, or a plain attribute."""

from __future__ import annotations

import torch
from torch import nn

from vqdoctor.capture.tables import are_rows, are_stacked, unsaved
from vqdoctor.core.evidence import UnsavedTable
from vqdoctor.models.lookups import lookups_found
from vqdoctor.models.untouched import seed_all, unwrapped, working_copy
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.model._gaps import of_model
from vqdoctor.probes.probe import Missing

_MOST_ROWS = 64
"""Different outputs of a module that are looked for in a table."""
_OTHER_SEED = 1
"""Added to the seed, so that a model built for comparison draws other numbers than the examined one."""
_TOLERANCE = 1e-4
"""Difference of two tables, as a share of the largest value, up to which they are one: rounding."""


def measure(context: ModelContext) -> UnsavedTable:
    """Return the tables in use that a checkpoint lacks, and that every new model draws anew.

    A table is as good as saved where a new model with the same state dict has it too: FSQ's, which its
    constructor computes, or a work buffer that each forward pass fills. A model that loads in a way of its
    own may fill its tables there, and is passed over.
    """
    if not context.first_batches:
        raise Missing("there is no training batch")
    tables = dict(unsaved(context.model, stacks=True))
    seen = {} if not tables or loads_itself(context.model) else _in_use(context, tables)
    if seen:
        loaded = _loaded_anew(context)
        seen = {name: n for name, n in seen.items() if not _equal(tables[name], loaded.get(name))}
    first = next(iter(seen), "")
    return UnsavedTable(
        source="batch",
        sample_size=sum(seen.values()),
        tables=tuple(seen),
        codes=tables[first].shape[:-1].numel() if seen else 0,
        dim=tables[first].shape[-1] if seen else 0,
        buffer=first in dict(context.model.named_buffers()),
    )


def loads_itself(model: nn.Module) -> bool:
    """Whether any module does more at a load than torch's own, such as computing a table from what it got."""
    own = ("load_state_dict", "_load_from_state_dict", "set_extra_state")
    return any(
        module._load_state_dict_pre_hooks
        or module._load_state_dict_post_hooks
        or any(getattr(type(module), name) is not getattr(nn.Module, name) for name in own)
        for module in model.modules()
    )


def _in_use(context: ModelContext, tables: dict[str, torch.Tensor]) -> dict[str, int]:
    """Return how many rows of each table the model was seen to look up in eval mode, of those in use.

    The tables become what the model's pass has made of them.
    """
    model = context.copy(training=False)
    own = {name: table for name, table in unsaved(model, stacks=True) if name in tables}
    with torch.no_grad(), lookups_found(own) as looked_up:
        context.task.losses(model, context.first_batches[0])
    tables.update(unsaved(model, stacks=True))
    used: dict[str, int] = {}
    for outputs in context.tables.values():
        for name, table in tables.items():
            if len(outputs) > 1 and _holds(table.detach().float().cpu(), outputs):
                used[name] = len(outputs)
    for name, lookup in looked_up.items():
        rows = lookup.z_q.reshape(-1, lookup.z_q.shape[-1])
        used.setdefault(name, len(torch.unique(rows, dim=0)))
    return used


def _holds(table: torch.Tensor, outputs: torch.Tensor) -> bool:
    """Whether outputs are the codes of a table [K, D], or are put together of those of a stack."""
    sample, width = outputs[:_MOST_ROWS], outputs.shape[1]
    if table.ndim == 2:
        return width == table.shape[1] and len(outputs) <= len(table) and are_rows(sample, table)
    stacks = (table, table.movedim(1, 0))
    return any(
        min(stack.shape) > 1 and len(stack) * stack.shape[2] == width and are_stacked(sample, stack)
        for stack in stacks
    )


def _loaded_anew(context: ModelContext) -> dict[str, torch.Tensor]:
    """Return the tables of a new model with the examined one's state dict, after a pass of the same batch."""
    seed_all(context.seed + _OTHER_SEED)
    model = working_copy(unwrapped(context.task.model()), training=False).to(context.device)
    try:
        model.load_state_dict(context.model.state_dict())
    except RuntimeError as error:
        raise Missing(f"a new model does not load the state: {error}") from error
    with torch.no_grad():
        context.task.losses(model, context.first_batches[0])
    return dict(unsaved(model, stacks=True))


def _equal(one: torch.Tensor, other: torch.Tensor | None) -> bool:
    if other is None or one.shape != other.shape:
        return False
    apart = (one.detach().cpu() - other.detach().cpu()).abs().max()
    return bool(apart <= _TOLERANCE * one.detach().abs().max())


PROBE = of_model(UnsavedTable, measure, mode="eval")

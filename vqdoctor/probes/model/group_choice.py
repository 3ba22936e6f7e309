"""The codes of each group of a product quantizer, beside the first group's and its own nearest ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from vqdoctor.capture.reader import Codes
from vqdoctor.core.evidence import GroupChoice
from vqdoctor.layouts.stacks import stacks
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.model._gaps import each_layer
from vqdoctor.probes.model.data_match import asked_and_chosen, nearest_of


def measure(context: ModelContext) -> dict[str, GroupChoice]:
    """Return how every group chooses whose vectors and codes are seen."""
    measured = {}
    for names in _families(context):
        choices = {name: choice for name in names if (choice := _choice(context, name)) is not None}
        if len(choices) < len(names):
            continue
        first, first_nearest = choices[names[0]]
        for number, (name, (chosen, nearest)) in enumerate(choices.items(), start=1):
            if len(chosen) == len(first):
                measured[name] = GroupChoice(
                    source="batch",
                    sample_size=len(chosen),
                    group=number,
                    groups=len(names),
                    same=float((chosen == first).mean()),
                    nearest=float((chosen == nearest).mean()),
                    first_nearest=float((first == first_nearest).mean()),
                    nearest_same=float((nearest == first).mean()),
                )
    return measured


def _families(context: ModelContext) -> Iterator[tuple[str, ...]]:
    """Yield the names of the heads of each module, and of the layers of each stack."""
    heads = defaultdict(list)
    for view in context.views:
        owner, head, _ = view.name.partition("[head ")
        if head and view.lookup != "logits":
            heads[owner].append(view.name)
    yield from (tuple(names) for names in heads.values() if len(names) > 1)
    for stack in stacks(context.views):
        names = tuple(view.name for view in stack)
        if not any("[head " in name for name in names) and all(v.lookup != "logits" for v in stack):
            yield names


def _choice(context: ModelContext, name: str) -> tuple[Codes, Codes] | None:
    """Return the codes [N] that a layer chose and those nearest to its vectors; None where not seen."""
    reader = context.layers[name].reader
    seen = context.seen_of(name)
    found = asked_and_chosen(reader, seen)
    if found is None:
        return None
    vectors, chosen = found
    return chosen, nearest_of(reader, vectors)[2].indices


PROBE = each_layer(
    GroupChoice, measure, "the layer is not one of several groups, or its vectors or codes are not seen",
    mode="eval", by_gradient=False,
)  # fmt: skip

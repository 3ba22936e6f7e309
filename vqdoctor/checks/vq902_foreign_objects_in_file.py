"""The file holds pickled objects that are neither tensors nor plain containers.

## Why it matters
A pickle can name any function, and an ordinary loader calls it. A file that names `os.system` runs a
command on whoever loads it. Harmless classes (a config object, a whole module) still make the file
unreadable where their package is missing or has changed, and for `torch.load(weights_only=True)`.

## How to read it
Names that could run code are an error; other foreign names are a note. Nothing of either was
imported or run to write this report: they were read as inert placeholders.

## Remedy
save-plain-state-dict: save tensors, numbers and strings only. Delete a file that names dangerous
functions, unless you know where it comes from.

## References
- Python documentation, `pickle`: "Only unpickle data you trust"
- PyTorch documentation, `torch.load`, `weights_only`
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vqdoctor.checks._specimens import FOREIGN_OBJECTS
from vqdoctor.checks._words import listed
from vqdoctor.core.check import Check, Example
from vqdoctor.core.evidence import ForeignObjects
from vqdoctor.core.finding import Measurement, Problem
from vqdoctor.core.levels import Severity


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Nothing to set: one dangerous name is one too many."""


def evaluate(foreign: ForeignObjects, limits: Limits) -> Iterator[Problem]:
    """Dangerous names are an error; where there are none, harmless ones are a note."""
    if foreign.dangerous:
        yield Problem(
            message=f"The file names {listed(foreign.dangerous)}, which can run code on whoever loads it "
            "in the ordinary way; nothing was run here.",
            severity=Severity.ERROR,
            measurements=(Measurement(name="dangerous_names", value=len(foreign.dangerous), limit=0),),
        )
    elif foreign.harmless:
        yield Problem(
            message=f"The file holds foreign objects ({listed(foreign.harmless)}), which torch.load refuses "
            "with weights_only=True; they were left inert here.",
            severity=Severity.NOTE,
            measurements=(Measurement(name="foreign_names", value=len(foreign.harmless)),),
        )


CHECK = Check(
    code="VQ902",
    name="foreign-objects-in-file",
    title="The file holds pickled objects that are neither tensors nor plain containers.",
    evaluate=evaluate,
    limits=Limits(),
    scope="model",
    remedies=("save-plain-state-dict",),
    examples=(
        Example(
            title="a pickle that calls os.system",
            evidence=(FOREIGN_OBJECTS.replace(sample_size=1, dangerous=("os.system",)),),
            fires=True,
        ),
        Example(
            title="command-line arguments saved as they are",
            evidence=(FOREIGN_OBJECTS.replace(sample_size=1, harmless=("argparse.Namespace",)),),
            fires=True,
        ),
        Example(title="tensors and numbers only", evidence=(FOREIGN_OBJECTS,), fires=False),
    ),
    doc=__doc__,
)

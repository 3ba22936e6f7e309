"""The file has no optimizer state.

## Why it matters
The optimizer remembers how large the gradients were on either side of the VQ layer. With it, a file
alone tells a cut encoder from any other fault; without it, that takes the model and data. A run
that goes on from such a file also starts its moments anew.

## How to read it
A note: files for inference, and all `.safetensors` files, rightly have none.

## Remedy
save-optimizer-state: save `optimizer.state_dict()` beside the model's, with epoch and config.

## References
- PyTorch tutorials, Saving and Loading Models: saving a general checkpoint
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vqdoctor.checks._specimens import NO_OPTIMIZER, OPTIMIZER_MEMORY
from vqdoctor.core.check import Check, Example
from vqdoctor.core.evidence import OptimizerMemory
from vqdoctor.core.finding import Measurement, Problem
from vqdoctor.core.levels import Severity


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Nothing to set: the state is there or not."""


def evaluate(memory: OptimizerMemory, limits: Limits) -> Iterator[Problem]:
    """Fire where no parameter has a state: no optimizer was saved, or one without moments (plain SGD)."""
    if memory.sample_size == 0:
        yield Problem(
            message="The file has optimizer state for 0 parameters: from the file alone, a cut encoder "
            "cannot be told from the other causes.",
            severity=Severity.NOTE,
            measurements=(Measurement(name="parameters_with_state", value=0),),
            decide_with="--data batch.npz",
        )


CHECK = Check(
    code="VQ903",
    name="no-optimizer-state",
    title="The file has no optimizer state.",
    evaluate=evaluate,
    limits=Limits(),
    scope="model",
    remedies=("save-optimizer-state",),
    examples=(
        Example(title="weights only", evidence=(NO_OPTIMIZER,), fires=True),
        Example(
            title="saved with its optimizer", evidence=(OPTIMIZER_MEMORY.replace(layer=None),), fires=False
        ),
    ),
    doc=__doc__,
)

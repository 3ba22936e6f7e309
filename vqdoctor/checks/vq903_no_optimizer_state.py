"""The file has no optimizer state.

## Why it matters
The optimizer remembers how large the gradients were on either side of the VQ layer. With it, a cut
encoder is found from the file alone; without it, that takes the model and data. A run
that goes on from such a file also starts its moments anew.

## How to read it
A note: files for inference, and all `.safetensors` files, rightly have none.

## Remedy
The optimizer's moments show a cut encoder without model or data. Only the config holds the weight of
the VQ loss, the decay and the number of updates.

## References
- PyTorch tutorials, Saving and Loading Models: saving a general checkpoint
"""

from vqdoctor.checks._words import Problems, measured, note
from vqdoctor.core.check import Advice, Check, CheckLimits, fires, passes
from vqdoctor.core.evidence import OptimizerMemory


def evaluate(memory: OptimizerMemory, limits: CheckLimits) -> Problems:
    """Fire where no parameter has a state: no optimizer was saved, or one without moments (plain SGD)."""
    if memory.sample_size == 0:
        yield note(
            "The file has optimizer state for 0 parameters: from the file alone, a cut encoder "
            "cannot be told from the other causes.",
            measured("parameters_with_state", 0),
            decide_with="--data batch.npz",
        )


CHECK = Check(
    code="VQ903",
    name="no-optimizer-state",
    evaluate=evaluate,
    scope="model",
    advice=Advice(
        name="save-optimizer-state",
        how="Next time save the optimizer's state, the epoch and the config beside the model.",
        code='config = {"vq_weight": 0.1, "decay": 0.99, "batch_size": 16}\n'
        'torch.save({"model": model.state_dict(), "epoch": epoch,\n'
        '            "optimizer": optimizer.state_dict(), "config": config}, path)',
    ),
    examples=(
        fires("weights only", OptimizerMemory(source="checkpoint", sample_size=0, parameters=0)),
        passes("saved with its optimizer", OptimizerMemory.healthy(layer=None)),
    ),
    doc=__doc__,
)

"""The codes that the model looks up are not in its checkpoint.

## Why it matters
A state dict holds parameters and persistent buffers. A codebook in a plain attribute, or in a buffer with
`persistent=False`, is trained with the process and lost with it: whoever loads the checkpoint gets codes as
the constructor draws them, beside an encoder and a decoder that know others. Every figure of the loaded model
is that of random codes, and looks like a collapse.

## How to read it
The model is run, and the tables that its state dict leaves out are compared with the codes that it looks
up. A table counts where its rows are these codes, and where a model that is built a second time has other
ones. Codes that are computed (FSQ's levels, a table of a fixed seed) are the same in each model and need no
place in a file. Models that fill such a table when they are loaded, by a hook or a method of their own, are
passed over.

## Remedy
save-codebook: keep the codes in a parameter or a persistent buffer and save again from the running process.
Without that process, the codes can be had back where the file holds EMA sums and counts: sums / counts. Else
train again.

## References
- torch.nn.Module.register_buffer: a buffer with persistent=False "will not be a part of this module's
  state_dict"
"""

from vqdoctor.checks._words import Problems, error, listed, measured
from vqdoctor.core.check import Advice, Check, CheckLimits, fires, passes
from vqdoctor.core.evidence import UnsavedTable


def evaluate(unsaved: UnsavedTable, limits: CheckLimits) -> Problems:
    """Name the tables in use that no state dict holds."""
    if not unsaved.tables:
        return
    what = "a buffer with persistent=False" if unsaved.buffer else "a plain attribute"
    yield error(
        f"The model looks its codes up in {listed(unsaved.tables)} ({unsaved.codes:,} × {unsaved.dim:,}), "
        f"{what} that no checkpoint holds: a model that loads one keeps the codes that its constructor drew, "
        "and the trained ones are lost.",
        measured("unsaved_tables", len(unsaved.tables), 0),
        measured("codes_seen", unsaved.sample_size),
    )


CHECK = Check(
    code="VQ319",
    name="codebook-not-saved",
    evaluate=evaluate,
    scope="model",
    advice=Advice(
        name="save-codebook",
        how="Keep the codes in a parameter or a persistent buffer, and save the trained model again.",
        code='self.register_buffer("codes", codes)   # without persistent=False',
    ),
    examples=(
        fires(
            "a buffer that is not persistent",
            UnsavedTable.healthy(tables=("vq.words",), codes=48, dim=8, buffer=True),
        ),
        fires("a plain attribute", UnsavedTable.healthy(tables=("vq.codes",), codes=512, dim=64)),
        passes("healthy", UnsavedTable.healthy()),
    ),
    doc=__doc__,
)

"""The file holds pickled objects that are neither tensors nor plain containers.

## Why it matters
A pickle can name any function, and an ordinary loader calls it. A file that names `os.system` runs a
command on the machine that loads it. Harmless classes (a config object, a whole module) still make the file
unreadable where their package is missing or has changed, and for `torch.load(weights_only=True)`.

## How to read it
Names that are known to run code are an error. Names that are not known here are a warning: a class of your
own project is most often harmless, but its name alone cannot show that. Classes that are known to hold values
only are a note. No name was imported or run to write this report: all were read as inert placeholders.

## Remedy
A file of plain values loads with `weights_only=True`, with other versions of the code, and in other
programs. Delete a file that names functions which can run code, unless you know where it comes from.

## References
- Python documentation, `pickle`: "Only unpickle data you trust"
- PyTorch documentation, `torch.load`, `weights_only`
"""

from vqdoctor.checks._words import Problems, error, listed, measured, note, warning
from vqdoctor.core.check import Advice, Check, CheckLimits, fires, passes
from vqdoctor.core.evidence import ForeignObjects


def evaluate(foreign: ForeignObjects, limits: CheckLimits) -> Problems:
    """Dangerous names are an error; where there are none, unknown ones a warning, and others a note."""
    if foreign.dangerous:
        yield error(
            f"The file names {listed(foreign.dangerous)}, which can run code on a machine that "
            "loads it in the ordinary way; none was run here.",
            measured("dangerous_names", len(foreign.dangerous), 0),
        )
    elif foreign.unknown:
        yield warning(
            f"The file holds objects whose classes could not be judged ({listed(foreign.unknown)}), which "
            "torch.load refuses with weights_only=True; they were left inert here.",
            measured("unknown_names", len(foreign.unknown), 0),
        )
    elif foreign.harmless:
        yield note(
            f"The file holds foreign objects ({listed(foreign.harmless)}), which torch.load refuses "
            "with weights_only=True; they were left inert here.",
            measured("foreign_names", len(foreign.harmless)),
        )


CHECK = Check(
    code="VQ902",
    name="foreign-objects-in-file",
    evaluate=evaluate,
    scope="model",
    advice=Advice(
        name="save-plain-state-dict",
        how="Save tensors, numbers and strings only, and config objects as plain dicts.",
        code='torch.save({"model": model.state_dict(), "epoch": epoch,\n'
        '            "optimizer": optimizer.state_dict(),\n'
        '            "config": vars(args)}, path)',
    ),
    examples=(
        fires("a pickle calls os.system", ForeignObjects.healthy(sample_size=1, dangerous=("os.system",))),
        fires(
            "command-line arguments", ForeignObjects.healthy(sample_size=1, harmless=("argparse.Namespace",))
        ),
        fires("a model pickled whole", ForeignObjects.healthy(sample_size=1, unknown=("project.Net",))),
        passes("tensors and numbers only", ForeignObjects.healthy()),
    ),
    doc=__doc__,
)

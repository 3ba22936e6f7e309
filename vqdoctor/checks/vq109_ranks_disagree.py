"""The processes of one training have different codebooks.

## Why it matters
DistributedDataParallel averages gradients. It does not average what a layer writes to its own buffers: an
EMA, a k-means initialisation or a revival that each process does from its own batch gives each process a
codebook of its own. The encoder is then trained for all of them at once, and the file holds one: for the
vectors of the other processes its codes are wrong. Broadcast buffers hide it, and then the data of all
processes but one are lost.

## How to read it
Files whose names differ in the number of the process alone (`rank0`, `rank_1`) are opened, and the codes of
each layer are compared one by one. Under torchrun (`torchrun --nproc-per-node 2 -m vqdoctor inspect …
--task …`) the model is built anew in each process, as the task builds it and as the file has it, and each
process runs up to 16 batches of its own. A code is another one where it is a thousandth of the spread of the
codes away, or of its own length where that is less: sums in another order make 1e-6 of it, another codebook
about 1. A revival of their own shows as a few codes; the median then stays at 0. An expiry that takes more
batches shows in the files alone.

## Remedy
Add up the counts and the sums of all processes before the codes are written, and draw what is random on one
process and broadcast it.

## References
- lucidrains/vector-quantize-pytorch: the option `sync_codebook`
- PyTorch, DistributedDataParallel: buffers are broadcast from rank 0 at every forward pass
"""

from vqdoctor.checks._words import Problems, error, figure, measured, warning
from vqdoctor.core.check import Advice, Check, CheckLimits, fires, passes
from vqdoctor.core.evidence import RankAgreement


def evaluate(agreement: RankAgreement, limits: CheckLimits) -> Problems:
    """Fire where the codes of any other process are not these."""
    if agreement.differing:
        when = "after the same steps" if agreement.source == "batch" else "in the files that they saved"
        # Whether a broadcast of buffers follows in the user's training is unknown.
        told = warning if agreement.source == "batch" else error
        yield told(
            f"{agreement.differing} of {agreement.others} other processes have another codebook {when}: "
            f"{agreement.codes} of its {agreement.sample_size} codes are others, and a typical one lies "
            f"{figure(agreement.worst)} times the spread of the codes away.",
            measured("differing", agreement.differing, unit="processes"),
            measured("worst", agreement.worst),
            measured("codes", agreement.codes, unit="codes"),
        )


CHECK = Check(
    code="VQ109",
    name="ranks-disagree",
    evaluate=evaluate,
    advice=Advice(
        name="synchronise-codebook",
        how="Let all processes add up their counts and sums before the EMA writes the codes.",
        code="torch.distributed.all_reduce(counts)   # [K], of this batch\n"
        "torch.distributed.all_reduce(sums)   # [K, D]\n"
        "# vector-quantize-pytorch does it by itself: sync_codebook=True",
    ),
    examples=(
        fires("an EMA in each process", RankAgreement.healthy(differing=3, worst=0.9)),
        passes("four processes, one codebook", RankAgreement.healthy()),
    ),
    doc=__doc__,
)

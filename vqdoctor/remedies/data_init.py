"""Start the codebook where the data is.

Draw z_e from many batches, 64 vectors per code or more: k-means on 64 vectors for 256 codes left 65
distinct rows. Rows drawn at random from z_e do almost as well. Write the EMA sums (codes x counts) and
the counts with the codes, and clear the optimizer's moments of the codebook.

It changes what every index means, so a decoder that was trained with the old codes has to be trained
on; that is why it is not applied unasked.
"""

from __future__ import annotations

from vqdoctor.core.levels import Safety, Stage
from vqdoctor.core.remedy import Remedy

REMEDY = Remedy(
    name="data-init",
    stage=Stage.INITIALISATION,
    safety=Safety.UNSAFE,
    addresses=("VQ301", "VQ302", "VQ501", "VQ504"),
    how="Initialise the codebook from encoder outputs by k-means, with the EMA counts and sums that "
    "belong to it.",
    code="codes, counts = kmeans(z_e, num_codes)   # z_e [N, D] of many batches\n"
    "vq.embedding.copy_(codes); vq.ema_cluster_size.copy_(counts)\n"
    "vq.ema_sum.copy_(codes * counts[:, None])   # or the next update undoes it",
    doc=__doc__,
)

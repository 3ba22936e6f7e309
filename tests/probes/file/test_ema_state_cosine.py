"""A trained cosine codebook agrees with its EMA sums, whose direction it is; nobody moved its codes."""

import torch
from vector_quantize_pytorch import VectorQuantize

from vqdoctor.probes.file import ema_state, revival


def test_a_healthy_cosine_codebook_agrees_with_its_sums(examine, ask):
    torch.manual_seed(0)
    vq = VectorQuantize(dim=8, codebook_size=16, use_cosine_sim=True, kmeans_init=True, decay=0.9)
    centres = torch.randn(16, 8)
    for _ in range(60):
        vq(centres[torch.randint(16, (4, 64))] + 0.2 * torch.randn(4, 64, 8))
    saved = {f"vq.{name}": tensor for name, tensor in vq.state_dict().items()}
    assert ask(ema_state, examine(saved)).sums_disagreement < 0.05
    assert ask(revival, examine(saved)).returned == 0
    saved["vq._codebook.embed"] = saved["vq._codebook.embed"].flip(1)
    assert ask(ema_state, examine(saved)).sums_disagreement > 0.5
    assert ask(revival, examine(saved)).returned >= 14

"""Assigning codes to 100,000 vectors with K = 8,192, against vector-quantize-pytorch's own lookup.

Ratios against a named peer in one run, in alternating pairs; never a time. `make bench` prints them.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import pytest
import torch
from processes import python
from vector_quantize_pytorch import VectorQuantize

from vqdoctor.metrics.match import nearest as nearest_numpy
from vqdoctor.vq.kmeans import nearest as nearest_torch

pytestmark = pytest.mark.bench

CODES, DIM = 8192, 64
VECTORS = 100_000
PEER_VECTORS = 20_000
"""The peer builds its whole [N, K] table, 3.3 GB for all the vectors: it is timed on a fifth of them."""
PAIRS = 3


def data(vectors: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(vectors, DIM, generator=generator), torch.randn(CODES, DIM, generator=generator)


def seconds(work, *args) -> float:
    start = time.perf_counter()
    work(*args)
    return time.perf_counter() - start


@pytest.mark.parametrize("ours", [nearest_numpy, nearest_torch], ids=["numpy", "torch"])
def test_assignment_is_as_fast_as_the_librarys_lookup(ours, capsys: pytest.CaptureFixture[str]) -> None:
    z, codebook = data(PEER_VECTORS)
    vq = VectorQuantize(dim=DIM, codebook_size=CODES).eval()
    vq.codebook = codebook
    given = (z.numpy(), codebook.numpy()) if ours is nearest_numpy else (z, codebook)
    with torch.no_grad():
        vq(z[None]), ours(*given)
        pairs = [(seconds(ours, *given), seconds(vq, z[None])) for _ in range(PAIRS)]
        found = ours(*given)
        own = vq(z[None])[1][0]
    ratio = statistics.median(a / b for a, b in pairs)
    indices = torch.as_tensor(found.indices if ours is nearest_numpy else found[0])
    with capsys.disabled():
        mine, peer = (statistics.median(column) for column in zip(*pairs, strict=True))
        print(
            f"\n{PEER_VECTORS} x {CODES}: {mine:.2f} s / vector-quantize-pytorch {peer:.2f} s = {ratio:.2f}"
        )
    assert (indices == own).float().mean() > 0.9999
    assert ratio <= 1.0


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells the peak")
def test_a_hundred_thousand_vectors_fit_into_two_gigabytes(capsys: pytest.CaptureFixture[str]) -> None:
    """As a whole process that imports torch and examines, with z_e, codes and codebook in memory."""
    script = (
        "import re, numpy as np, torch\n"
        "from vqdoctor.metrics.match import match, nearest\n"
        "rng = np.random.default_rng(0)\n"
        f"z = rng.standard_normal(({VECTORS}, {DIM}), dtype=np.float32)\n"
        f"codes = rng.standard_normal(({CODES}, {DIM}), dtype=np.float32)\n"
        "match(z, codes, nearest(z, codes))\n"
        # not ru_maxrss, which starts at the parent's
        "print(re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1])\n"
    )
    done = python("-c", script, check=True)
    peak = int(done.stdout) / 1024
    with capsys.disabled():
        print(f"\n{VECTORS} x {CODES}: peak {peak:.0f} MB")
    assert peak < 2000

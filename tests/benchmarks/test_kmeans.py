"""k-means of 100,000 vectors against faiss's and vector-quantize-pytorch's own.

Ratios against a named peer in one run, in alternating pairs; never a time. `make bench` prints them.
faiss gets the same starts, points, iterations and one thread; CPU seconds, so that other work on the
machine counts little.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import faiss
import numpy as np
import pytest
import torch
from processes import python
from torch.nn import functional

from vqdoctor.reference.model import Conv2dVQClassifier
from vqdoctor.reference.train import encode
from vqdoctor.vq.kmeans import kmeans, nearest

pytestmark = pytest.mark.bench

SAMPLES = Path(__file__).parents[2] / "sample_checkpoints"
VECTORS, DIM = 100_000, 64
ITERATIONS = 10
PAIRS = 3


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads(), faiss.omp_get_max_threads()
    torch.set_num_threads(1), faiss.omp_set_num_threads(1)
    yield
    torch.set_num_threads(before[0]), faiss.omp_set_num_threads(before[1])


def gaussian() -> torch.Tensor:
    return torch.randn(VECTORS, DIM, generator=torch.Generator().manual_seed(0))


def mixture() -> torch.Tensor:
    """300 clusters of unequal size, weight and axes, off the origin: most of the variance in few axes."""
    generator = torch.Generator().manual_seed(0)
    centres = 2.0 + torch.randn(300, DIM, generator=generator) * torch.linspace(3.0, 0.1, DIM)
    weights = torch.rand(300, generator=generator) ** 3
    chosen = torch.multinomial(weights, VECTORS, replacement=True, generator=generator)
    widths = torch.rand(300, 1, generator=generator)[chosen]
    return centres[chosen] + widths * torch.randn(VECTORS, DIM, generator=generator)


def encoded() -> torch.Tensor:
    """z_e of a trained encoder on real digits, each also moved by a pixel to three sides."""
    checkpoint = torch.load(SAMPLES / "healthy-512.pt", weights_only=True)
    model = Conv2dVQClassifier(num_codes=512, dim=DIM)
    model.load_state_dict(checkpoint["model"])
    digits = torch.tensor(np.load(SAMPLES / "digits.npz")["x"])
    framed = functional.pad(digits, (1, 1, 1, 1))
    sides = [framed[:, :, i : i + 8, j : j + 8] for i, j in ((1, 1), (0, 1), (2, 1), (1, 0))]
    z_e = encode(model.eval(), torch.cat(sides))
    return z_e[torch.randperm(len(z_e), generator=torch.Generator().manual_seed(0))[:VECTORS]]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ours(z_e: torch.Tensor, codes: int, seed: int) -> torch.Tensor:
    return kmeans(z_e, codes, generator=seeded(seed), iterations=ITERATIONS).centres


def peers(z_e: torch.Tensor, codes: int, seed: int) -> torch.Tensor:
    start = z_e[torch.randperm(len(z_e), generator=seeded(seed))[:codes]]
    peer = faiss.Kmeans(
        DIM, codes, niter=ITERATIONS, max_points_per_centroid=256, min_points_per_centroid=1, seed=seed
    )
    peer.train(z_e.numpy(), init_centroids=start.numpy())
    return torch.tensor(peer.centroids)


def timed(work, z_e: torch.Tensor, codes: int, seed: int) -> tuple[float, float]:
    """Return the CPU seconds, and the squared error of all the vectors."""
    start = time.process_time()
    centres = work(z_e, codes, seed)
    took = time.process_time() - start
    return took, float(nearest(z_e, centres)[1].double().sum())


@pytest.mark.parametrize(
    ("data", "codes"),
    [(gaussian, 512), (mixture, 512), (encoded, 512), (gaussian, 8192), (mixture, 8192), (encoded, 8192)],
)
def test_kmeans_is_nearly_as_fast_as_faiss_and_as_good(data, codes, capsys: pytest.CaptureFixture[str]):
    """The medians of a few starts. Errors may differ by the half of a percent that luck makes.

    The two put centres that lose all their points elsewhere: from one start to the next, that moved the
    ratio by up to a percent either way on the mixture, and by less than 0.0001 where no centre lost them.
    """
    z_e = data()
    assert z_e.shape == (VECTORS, DIM)
    ours(z_e[: codes * 2], codes, 0), peers(z_e[: codes * 2], codes, 0)
    pairs = [(timed(ours, z_e, codes, seed), timed(peers, z_e, codes, seed)) for seed in range(1, PAIRS + 1)]
    time_ratio = statistics.median(a[0] / b[0] for a, b in pairs)
    error_ratio = statistics.median(a[1] / b[1] for a, b in pairs)
    mine, peer = (statistics.median(side[0] for side in column) for column in zip(*pairs, strict=True))
    with capsys.disabled():
        print(
            f"\n{data.__name__} {VECTORS} x {codes}, {ITERATIONS} iterations: {mine:.2f} s / faiss "
            f"{peer:.2f} s = {time_ratio:.2f}; error {error_ratio:.4f}"
        )
    assert time_ratio <= 1.6
    assert error_ratio <= 1.005


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells the peak")
def test_the_peak_is_a_tenth_of_the_librarys_own(capsys: pytest.CaptureFixture[str]) -> None:
    """As whole processes that import both libraries; one iteration, as each takes the same memory."""
    script = (
        "import re, torch\n"
        "from vector_quantize_pytorch.vector_quantize_pytorch import kmeans as peer\n"
        "from vqdoctor.vq.kmeans import kmeans\n"
        "torch.manual_seed(0)\n"
        f"z_e = torch.randn({VECTORS}, {DIM})\n"
        "{call}\n"
        # not ru_maxrss, which starts at the parent's
        "print(re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1])\n"
    )
    calls = (
        "kmeans(z_e, 8192, generator=torch.Generator(), iterations=1)",
        "with torch.no_grad(): peer(z_e[None], 8192, num_iters=1)",
    )
    peaks = []
    for call in calls:
        done = python("-c", script.replace("{call}", call), check=True)
        peaks.append(int(done.stdout) / 1024)
    mine, peer = peaks
    with capsys.disabled():
        print(
            f"\n{VECTORS} x 8192: {mine:.0f} MB / vector-quantize-pytorch {peer:.0f} MB = {mine / peer:.3f}"
        )
    assert mine <= 0.1 * peer

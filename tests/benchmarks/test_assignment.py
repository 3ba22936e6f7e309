"""Assigning codes with K = 8,192, against vector-quantize-pytorch, faiss and the machine's matrix product.

Ratios against a named peer in one run, in alternating pairs; never a time. `make bench` prints them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
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
MILLION, PARTS = 1_000_000, 10


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


def cpu_seconds(work, *args) -> float:
    start = time.process_time()
    work(*args)
    return time.process_time() - start


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_million_vectors_against_an_exact_search_and_the_machines_matrix_product(
    one_thread: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """CPU seconds of one thread; the million in ten parts, each given to all peers in turn.

    The matrix product is the machine's best, of square matrices in cache-sized blocks; of these very shapes,
    64 numbers a vector, it is slower, since every product of 64 terms is written to a table of 8,192.
    """
    faiss = pytest.importorskip("faiss", reason="faiss is not installed: pip install faiss-cpu")
    faiss.omp_set_num_threads(1)
    z, codebook = data(MILLION // PARTS)
    index = faiss.IndexFlatL2(DIM)
    index.add(codebook.numpy())
    square, table = torch.randn(2048, 2048), torch.empty(len(z) // 400, CODES)

    def product_of_these_shapes() -> None:
        for rows in z.split(len(table)):
            torch.mm(rows, codebook.T, out=table[: len(rows)])

    done: dict[str, list[float]] = {}
    for _ in range(PARTS):
        for name, work in {
            "torch": lambda: nearest_torch(z, codebook),
            "numpy": lambda: nearest_numpy(z.numpy(), codebook.numpy()),
            "faiss": lambda: index.search(z.numpy(), 1),
            "these": product_of_these_shapes,
        }.items():
            done.setdefault(name, []).append(2e-9 * len(z) * CODES * DIM / cpu_seconds(work))
        squares = [2e-9 * 2048**3 / cpu_seconds(torch.mm, square, square) for _ in range(5)]
        done.setdefault("square", []).append(statistics.median(squares))
    rate = {name: statistics.median(rates) for name, rates in done.items()}
    ratios = {
        (ours, peer): statistics.median(a / b for a, b in zip(done[ours], done[peer], strict=True))
        for ours in ("torch", "numpy")
        for peer in ("faiss", "square", "these")
    }
    with capsys.disabled():
        print(f"\n{MILLION} x {CODES} x {DIM}, GFlop/s:", {k: round(v, 1) for k, v in rate.items()})
        print({f"{ours} / {peer}": round(ratio, 2) for (ours, peer), ratio in ratios.items()})
    assert torch.equal(
        torch.from_numpy(index.search(z.numpy()[:5000], 1)[1][:, 0]), nearest_torch(z[:5000], codebook)[0]
    )
    assert ratios["torch", "faiss"] >= 0.8
    assert ratios["torch", "square"] >= 0.6


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

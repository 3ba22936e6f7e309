"""Measures the constants of docs/scale.md, in seconds of one core: `PYTHONPATH=. python tests/scale.py`."""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from ranked import in_threads, ranks_of

from vqdoctor.engine import examine
from vqdoctor.vq.kmeans import nearest

CODES, DIM = 262_144, 64


def seconds(work: Callable[[], object]) -> float:
    """Return the seconds of processor time that some work takes."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def checkpoint(folder: Path, codes: int) -> Path:
    """Write a checkpoint with an EMA codebook."""
    table, counts = torch.randn(codes, DIM), torch.full((codes,), 9.0)
    state = {
        "vq.embedding": table,
        "vq.ema_cluster_size": counts,
        "vq.ema_embed_sum": table * counts[:, None],
    }
    torch.save(state, folder / f"{codes}.pt")
    return folder / f"{codes}.pt"


def main() -> None:
    """Print each constant."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        large, small = checkpoint(folder, CODES), checkpoint(folder, 256)
        examine(small)
        print(f"inspect a file, K 256: {seconds(lambda: examine(small)):.3f} s")
        print(f"inspect a file, K {CODES:,} (D {DIM}): {seconds(lambda: examine(large)):.1f} s")
        for vectors in (1_000_000, 10_000_000):
            np.savez(folder / "dump.npz", indices=np.random.default_rng(0).integers(0, CODES, vectors))
            taken = seconds(lambda: examine(large, data=folder / "dump.npz"))
            print(f"inspect with {vectors:,} indices: {taken:.1f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory so far: {peak:.2f} GiB")
    points, codes = torch.randn(2048, DIM), torch.randn(CODES, DIM)
    nearest(points[:64], codes)
    taken = seconds(lambda: nearest(points, codes)) / len(points)
    print(
        f"lookup of a vector among {CODES:,} codes: {1e3 * taken:.2f} ms, "
        f"{2 * CODES * DIM / taken / 1e9:.0f} GFLOP/s"
    )
    ranks = ranks_of(2)
    sent = [torch.randn(16_000_000 // DIM, DIM) for _ in ranks]
    for what, send in (
        ("all-reduce", lambda r, t: r.add_up([t])),
        ("gather", lambda r, t: r.joined_rows(t, [len(t)] * 2)),
    ):
        begun = time.monotonic()
        in_threads([lambda r=r, t=t, send=send: send(r, t) for r, t in zip(ranks, sent, strict=True)])
        print(f"{what} of 64 MB between two processes by gloo: {time.monotonic() - begun:.2f} s of the clock")


if __name__ == "__main__":
    sys.exit(main())

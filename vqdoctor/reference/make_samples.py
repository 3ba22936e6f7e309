"""Trains the sample checkpoints and writes them with their data, the same for the same seed.

Run as `python -m vqdoctor.reference.make_samples [OUT_DIR] [--seed 0]`; needs scikit-learn, whose copy of
the digits becomes digits.npz, and motion.npz in that folder (see `make_motion`). It takes about four minutes
on one core.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from vqdoctor.core.evidence import ACTIVE_SHARE
from vqdoctor.metrics.calibration import accuracy, expected_calibration_error, softmax
from vqdoctor.metrics.entropy import plug_in_entropy
from vqdoctor.reference.make_digits import digits
from vqdoctor.reference.recipes import ON_MOTION, RECIPES, SAMPLES
from vqdoctor.reference.task import DIGITS, MOTION
from vqdoctor.reference.train import TrainedModel, train

HEADING = "sample            val accuracy    ECE   perplexity    used  active     K"


def summary(name: str, trained: TrainedModel) -> str:
    """Return one line: accuracy and ECE on val, and the usage of the codebook over all splits."""
    task, model = trained.task, trained.model
    with torch.no_grad():
        inputs, right_ones = task.data["val"]
        logits, labels = model(inputs)["logits"].numpy(), right_ones.numpy()
        indices = np.concatenate([model(x)["indices"].numpy().ravel() for x, _ in task.data.values()])
    counts = np.bincount(indices, minlength=model.num_codes)
    right, ece = accuracy(logits, labels), expected_calibration_error(softmax(logits), labels)
    active = (counts * len(counts) > ACTIVE_SHARE * counts.sum()).sum()
    return (
        f"{name:<16}  {right:12.4f}  {ece:.3f}  {np.exp(plug_in_entropy(counts)):11.2f}"
        f"  {(counts > 0).sum():6d}  {active:6d}  {len(counts):4d}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Write digits.npz and the samples into a folder, and what they measure to stderr."""
    parser = argparse.ArgumentParser(description="Train the sample checkpoints.")
    parser.add_argument("out", nargs="?", default="sample_checkpoints", type=Path, help="folder to write to")
    parser.add_argument("--seed", type=int, default=0, help="seed of every training")
    parser.add_argument("--only", nargs="+", default=SAMPLES, choices=SAMPLES, help="train only these")
    options = parser.parse_args(arguments)
    # on one thread sums have one order: the same bytes wherever the arithmetic is the same
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    data = {DIGITS: digits(), MOTION: dict(np.load(options.out / MOTION.file))}
    np.savez_compressed(options.out / DIGITS.file, **data[DIGITS])
    sys.stderr.write(HEADING + "\n")
    for name in options.only:
        data_set = MOTION if name in ON_MOTION else DIGITS
        trained = train(RECIPES[name], data[data_set], options.seed, data_set=data_set)
        torch.save(dict(trained.checkpoint), options.out / f"{name}.pt")
        sys.stderr.write(summary(name, trained) + "\n")


if __name__ == "__main__":
    main()

"""A process of a launch that makes its default group again and again, and prints the sum of all its sums."""

from __future__ import annotations

import sys

import torch
from torch import distributed

from vqdoctor.core.launcher import Launched
from vqdoctor.models.process_group import default_group

TIMES = 100


def main() -> None:
    """Add up ones over the processes in one default group after another."""
    total = 0.0
    for _ in range(TIMES):
        with default_group(Launched.of()):
            one = torch.ones(())
            distributed.all_reduce(one)
            total += one.item()
    sys.stdout.write(f"{total:g}")


if __name__ == "__main__":
    main()

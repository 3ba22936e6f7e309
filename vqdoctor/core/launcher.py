"""The processes that torch's launcher started, as its environment tells each of them."""

from __future__ import annotations

import os
from collections.abc import Mapping

from vqdoctor.core.frozen import frozen


@frozen
class Launched:
    """The place of this process among those of one launch.

    Attributes:
        rank: from 0; rank zero writes and prints.
        size: how many there are; 1 without a launcher.
        local_rank: the place among those of this machine, which is that of its GPU.
        local_size: how many there are on this machine.
        attempt: how often the launcher has started them anew.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    attempt: int = 0

    @classmethod
    def of(cls, environment: Mapping[str, str] = os.environ) -> Launched:
        """Return the place that torchrun's variables tell; that of a single process without them.

        Variables of that name which another scheduler sets are left alone.
        """
        if "TORCHELASTIC_RUN_ID" not in environment:
            return cls()
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RESTART_COUNT")
        try:
            rank, size, local, beside, attempt = (int(environment.get(name, "0")) for name in names)
        except ValueError:
            return cls()
        if not 0 <= rank < size:
            return cls()
        return cls(rank=rank, size=size, local_rank=local, local_size=beside or size, attempt=attempt)

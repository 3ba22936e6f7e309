"""A file's tensors in a freshly built model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from vqdoctor.checkpoint import open_checkpoint
from vqdoctor.core.errors import UserError
from vqdoctor.models.load import load_state


class Extra(torch.nn.Linear):
    """A module that keeps plain values beside its tensors, as a quantized layer or a tokenizer does."""

    def get_extra_state(self) -> dict[str, int]:
        return {"steps": 7}

    def set_extra_state(self, state: Any) -> None:
        self.steps = state["steps"]


def test_plain_values_of_a_state_are_no_tensors(tmp_path: Path) -> None:
    torch.manual_seed(0)
    saved, built = Extra(3, 4), Extra(3, 4)
    torch.save(saved.state_dict(), tmp_path / "a.pt")
    loaded = load_state(built, open_checkpoint(tmp_path / "a.pt").tensors)
    assert loaded.missing == () and torch.equal(saved.weight, built.weight)


def test_a_model_whose_shapes_wait_for_a_batch_is_told(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(3, 4).state_dict(), tmp_path / "a.pt")
    with pytest.raises(UserError, match="without a shape until its first pass: weight") as caught:
        load_state(torch.nn.LazyLinear(4), open_checkpoint(tmp_path / "a.pt").tensors)
    assert "run one batch" in caught.value.hint

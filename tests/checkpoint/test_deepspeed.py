"""DeepSpeed's files: whole weights under ZeRO 1 and 2, and under ZeRO 3 what is left of them."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from processes import python

WEIGHTS = {
    "encoder.weight": torch.randn(16, 8),
    "quantize.embedding.weight": torch.randn(64, 16),
    "decoder.weight": torch.randn(8, 16),
}


def save(folder: Path, stage: int) -> Path:
    """Save the model's part of a checkpoint, as DeepSpeed's engine does."""
    shapes = [OrderedDict((name, tensor.shape) for name, tensor in WEIGHTS.items())]
    state = {
        "module": {name: torch.empty(0) if stage == 3 else tensor for name, tensor in WEIGHTS.items()},
        "param_shapes": shapes,
        "global_steps": 120,
        "ds_config": {"train_batch_size": 16, "zero_optimization": {"stage": stage}},
        "ds_version": "0.14.0",
    }
    path = folder / ("zero_pp_rank_0_" * (stage == 3) + "mp_rank_00_model_states.pt")
    torch.save(state, path)
    return path


@pytest.mark.parametrize("stage", [1, 2])
def test_whole_weights_are_read_with_their_record(stage: int, tmp_path: Path) -> None:
    done = python("-m", "vqdoctor", "inspect", save(tmp_path, stage))
    assert "quantize  64 codes of 16 dimensions" in done.stdout
    assert "updates 120, batch size 16" in done.stdout


def test_a_codebook_in_parts_is_in_the_headline(tmp_path: Path) -> None:
    done = python("-m", "vqdoctor", "inspect", save(tmp_path, 3))
    assert done.returncode == 3
    headline = " ".join(done.stdout.split("file ")[0].split())
    assert "no VQ layer can be read: module.quantize.embedding.weight: it is empty here" in headline
    assert "zero_to_fp32.py" in headline

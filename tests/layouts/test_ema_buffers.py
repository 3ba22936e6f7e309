"""Home-made EMA layers with their statistics in buffers, as the first model wrote them."""

import numpy as np
import pytest
import torch

from tests.first_model import first_model_file
from vqdoctor.checkpoint import open_checkpoint
from vqdoctor.core.levels import Confidence
from vqdoctor.layouts import find_quantizers


@pytest.mark.parametrize(("sums", "start"), [("ema_embed_sum", 1.0), ("ema_cluster_sum", 0.0)])
def test_the_first_models_file_is_found_by_its_names(tmp_path, sums, start):
    saved = first_model_file(sums=sums)
    torch.save(saved, tmp_path / "best.pt")
    (view,) = find_quantizers(open_checkpoint(tmp_path / "best.pt").tensors).views
    assert (view.name, view.layout, view.confidence) == ("vq", "ema-buffers", Confidence.HIGH)
    assert (view.num_codes, view.dim, view.start_count) == (512, 64, start)
    assert view.smoothing is None, "unknown, and not zero"
    stored = saved["model_state_dict"][f"vq.{sums}"].numpy()
    np.testing.assert_array_equal(view.sums, stored)


@pytest.mark.parametrize(
    "sums", ["ema_embed_sum", "ema_cluster_sum", "cluster_sum", "ema_sum", "ema_weight", "_ema_weight"]
)
def test_sums_are_read_under_any_of_their_names(fake, sums):
    shapes = {"q.embedding.weight": (32, 8), "q.cluster_size": (32,), f"q.{sums}": (32, 8)}
    (view,) = find_quantizers(fake(shapes)).views
    assert view.keys["sums"] == f"q.{sums}"

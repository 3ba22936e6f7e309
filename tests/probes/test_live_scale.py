"""What a layer's own update writes, and the lengths in its lookup, in really trained models."""

from __future__ import annotations

import numpy as np
import pytest
from live_models import live, on_digits, trained
from small_training import Digits
from torch import nn
from vector_quantize_pytorch import VectorQuantize

from vqdoctor.probes.model import ema_relation, lookup_scale

PROBES = (ema_relation, lookup_scale)


@pytest.mark.parametrize(
    ("quantizer", "expected"),
    [
        ("unnormalised", {"VQ309"}),
        ("unnormalised-sound", set()),
        ("sphere", {"VQ310"}),
        ("sphere-sound", set()),
        ("ema", set()),
    ],
)
def test_the_layers_own_update_names_its_fault(quantizer: str, expected: set[str]) -> None:
    model, task = on_digits(quantizer, epochs=8)
    evidence, findings = live(model, task, PROBES, "VQ309", "VQ310")
    assert set(findings) == expected
    relation = evidence["ema-relation"]
    if quantizer == "unnormalised":
        assert relation.scale == pytest.approx(relation.total, rel=1e-3)
    elif quantizer == "sphere":
        assert evidence["lookup-scale"].factor > 1.1
        assert findings["VQ310"].confidence.label == "high"
    else:
        assert relation.scale == pytest.approx(1.0, rel=1e-3)


class WithLibrary(Digits):
    """The reference model around a layer of vector-quantize-pytorch."""

    def __init__(self, **how: object) -> None:
        super().__init__(vq_weight=0.1)
        self.how = how

    def model(self) -> nn.Module:
        model = super().model()
        model.vq = Images(VectorQuantize(dim=8, codebook_size=32, decay=0.9, **self.how))
        return model


class Images(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, z):  # type: ignore[no-untyped-def]
        from vqdoctor.reference.quantizer import Quantized, perplexity_of

        z_q, indices, loss = self.inner(z.movedim(1, -1).flatten(1, 2))
        counts = indices.flatten().bincount(minlength=32).float()
        z_q = z_q.transpose(1, 2).reshape(z.shape)
        return Quantized(z_q, indices.view(len(z), *z.shape[2:]), loss.sum(), perplexity_of(counts))


@pytest.mark.parametrize("how", [{}, {"use_cosine_sim": True}, {"kmeans_init": True}])
def test_layers_of_a_library_are_sound(how: dict[str, object]) -> None:
    task = WithLibrary(**how)
    evidence, findings = live(trained(task, 2), task, PROBES, "VQ309", "VQ310")
    assert "ema-relation" in evidence
    assert findings == {}


def test_padding_counts_no_more_than_any_other_code() -> None:
    chosen = np.array([0] * 810 + [code for code in range(1, 20) for _ in range(10)])
    kept = chosen[lookup_scale._fair(chosen)]
    counts = np.bincount(kept)
    assert counts[0] == len(chosen) // 20 and (counts[1:] == 10).all()

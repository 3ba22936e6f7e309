"""Codes written with all that belongs to them, in numpy and in torch, against a library's next step."""

import numpy as np
import pytest
import torch
from vector_quantize_pytorch import VectorQuantize

from vqdoctor.vq.codebook import Codebook, dead_codes
from vqdoctor.vq.ema import divisor

KINDS = {"numpy": np.asarray, "torch": torch.tensor}


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


def test_codes_written_into_a_library_stay_through_its_own_next_step():
    """vector-quantize-pytorch divides by its smoothed counts: sums of codes × counts fall by a tenth."""
    torch.manual_seed(0)
    vq = VectorQuantize(dim=4, codebook_size=16, decay=0.9, threshold_ema_dead_code=0).train()
    inner = vq._codebook
    stored = Codebook(
        codes=inner.embed[0], counts=inner.cluster_size[0], sums=inner.embed_avg[0], smoothing=inner.eps
    )
    rows, codes = torch.arange(16), torch.randn(16, 4) + torch.arange(16)[:, None]
    stored.write(rows, codes, torch.tensor([100.0] + [1e-4] * 15))
    vq(codes[:1].expand(1, 1, 4).clone())  # one vector, on a code: every code is where it was
    torch.testing.assert_close(inner.embed[0], codes, rtol=0.02, atol=1e-3)  # ten times as near as unsmoothed


def test_writing_leaves_other_rows_alone_and_clears_what_was_remembered(kind):
    arrays = {name: kind(np.ones((5, 2), np.float32)) for name in ("codes", "sums", "moment")}
    counts, flag = kind(np.full(5, 2.0, np.float32)), kind(np.zeros(1, np.float32))
    stored = Codebook(
        codes=arrays["codes"], counts=counts, sums=arrays["sums"], smoothing=0.5, initialised=flag
    )
    new = kind(np.array([[3.0, 4.0]], np.float32))
    stored.write(kind(np.array([2])), new, kind(np.array([7.0], np.float32)), [arrays["moment"]])
    assert arrays["codes"].tolist() == [[1, 1], [1, 1], [3, 4], [1, 1], [1, 1]]
    assert counts.tolist() == [2, 2, 7, 2, 2]
    assert arrays["moment"].tolist() == [[1, 1], [1, 1], [0, 0], [1, 1], [1, 1]]
    assert float(flag[0]) == 1
    smoothed = (7 + 0.5) / (15 + 5 * 0.5) * 15
    assert arrays["sums"].tolist()[2] == pytest.approx([3 * smoothed, 4 * smoothed])
    assert arrays["sums"].tolist()[1] == [1, 1]


@pytest.mark.parametrize("smoothing", [None, 0.0, 1e-5, 0.3])
def test_both_kinds_agree_and_smoothing_keeps_the_sum(kind, smoothing):
    counts = np.random.default_rng(0).random(64) * 10
    found = divisor(kind(counts), smoothing)
    np.testing.assert_allclose(np.asarray(found), divisor(counts, smoothing), rtol=1e-12)
    assert float(found.sum()) == pytest.approx(counts.sum())
    assert (float(found.min()) > counts.min()) == bool(smoothing)


def test_counts_that_are_all_zero_divide_by_zero_and_by_nothing_else(kind):
    assert divisor(kind(np.zeros(4)), 1e-5).tolist() == [0, 0, 0, 0]


def test_the_threshold_is_relative_to_uniform_usage():
    """Uniform usage of 512 codes is 0.002 each: under an absolute 0.01, yet nothing is dead."""
    usage = torch.ones(512)
    assert not dead_codes(usage, 0.1).any()
    usage[7] = 0.05
    assert dead_codes(usage, 0.1).nonzero().flatten().tolist() == [7]


def test_never_every_code_is_dead():
    assert not dead_codes(torch.zeros(8), 1.0).any()
    assert dead_codes(torch.tensor([1.0, 2.0, 3.0]), 1.0).sum() < 3


@pytest.mark.parametrize("threshold", [0.0, -0.1, 1.5])
def test_a_threshold_that_could_kill_all_is_refused(threshold):
    with pytest.raises(ValueError, match=r"above 0 and at most 1"):
        dead_codes(torch.ones(4), threshold)


def test_dead_codes_are_the_same_in_both_kinds(kind):
    usage = np.random.default_rng(1).exponential(size=256) ** 3
    assert dead_codes(kind(usage), 0.2).tolist() == (usage < 0.2 / 256 * usage.sum()).tolist()

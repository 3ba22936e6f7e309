import numpy as np
import pytest
import torch
from scipy import stats
from vector_quantize_pytorch import VectorQuantize

from vqdoctor.checks import vq402_batch_too_small
from vqdoctor.core.evidence import Unavailable, Usage
from vqdoctor.probes.file import code_expiry, ema_state, level_use, usage

HINT = "--data"


def saved(model, decay=None, step=None):
    out = {"model": model.state_dict()}
    if decay is not None:
        out["config"] = {"decay": decay, "num_codes": 32}
    if step is not None:
        out["step"] = step
    return out


def remembered(model, decay):
    """The EMA of the true counts, without any start value."""
    counts = torch.zeros(32, dtype=torch.float64)
    for votes in model.vq.history:
        counts = counts * decay + (1 - decay) * votes
    return counts.numpy()


def chosen_in_the_last(model, batches):
    return int((torch.stack(model.vq.history[-batches:]).sum(0) > 0).sum())


@pytest.mark.parametrize(("decay", "steps"), [(0.9, 200), (0.99, 400), (0.995, 200)])
def test_tells_what_the_ema_of_true_counts_tells(tiny, trained, examine, ask, decay, steps):
    model = tiny(decay=decay)
    trained(model, steps)
    found = ask(usage, examine(saved(model, decay, steps)))
    truth = remembered(model, decay)
    assert isinstance(found, Usage)
    assert found.perplexity == pytest.approx(np.exp(stats.entropy(truth)), rel=1e-3)
    assert found.perplexity_low <= found.perplexity <= found.perplexity_high
    assert found.active == np.sum(truth > 0.1 * truth.sum() / 32)
    window, longer = (chosen_in_the_last(model, round(n / (1 - decay))) for n in (2, 4))
    assert window <= found.used <= longer  # a code chosen often, a little earlier, still counts
    assert found.sample_size == pytest.approx(truth.sum(), abs=1)
    assert found.window == pytest.approx((1 + decay) / (1 - decay))
    assert found.effective_size == pytest.approx(truth.sum() * found.window, rel=1e-3)


@pytest.mark.parametrize("steps", [100, 1000, 4000])
def test_a_stalled_ema_says_that_it_does_not_know(tiny, examine, ask, steps):
    model = tiny(decay=0.9999)
    votes = torch.zeros(32)
    votes[:3] = 20.0
    for _ in range(steps):
        model.vq.ema_cluster_size.mul_(0.9999).add_(votes, alpha=1e-4)
    known = ask(usage, examine(saved(model, 0.9999, steps)))
    bare = ask(usage, examine(saved(model)))
    for gap in (known, bare):
        assert isinstance(gap, Unavailable) and gap.kind == "usage"
        assert "not converged" in gap.reason and gap.hint.startswith(HINT)
    assert f"{0.9999**steps:.0%}" in known.reason
    assert "29 codes still share" in bare.reason


@pytest.mark.parametrize("steps", [300, 700, 2000])
def test_a_start_that_gave_each_code_a_little_is_not_usage(tiny, examine, ask, steps):
    """So a start from data leaves the counts: near one another, with no two equal."""
    model, draw = tiny(decay=0.9999), torch.Generator().manual_seed(steps)
    counts = model.vq.ema_cluster_size
    for step in range(steps):
        votes = 4 * torch.rand(32, generator=draw) * (step < 5)
        votes[:3] += 10.0
        counts.mul_(0.9999).add_(votes, alpha=1e-4)
    assert len(counts.unique()) > 28
    gap = ask(usage, examine(saved(model)))
    assert isinstance(gap, Unavailable) and "may not be converged" in gap.reason


@pytest.mark.parametrize("one", [1.0, 30.0])
@pytest.mark.parametrize("decay", [0.95, 0.99])
@pytest.mark.parametrize("mean", [0.5, 0.98])
def test_even_counts_below_their_start_are_usage(make_view, one, decay, mean):
    """Codes that a converged EMA sees chosen evenly, and one of them far more often."""
    draw, updates = np.random.default_rng(7), round(5 / (1 - decay))
    weights = (1 - decay) * decay ** np.arange(updates)
    often = np.array([one, *[1.0] * 63])
    counts = draw.poisson(mean * often[:, None], (64, updates)) @ weights + decay**updates
    votes = usage.without_start(make_view(np.eye(64), counts, start_count=1.0), None)
    assert counts.min() < 1.0
    np.testing.assert_allclose(votes, counts, rtol=1e-6)


def test_a_record_that_contradicts_the_counts_is_not_believed(tiny, trained, examine, ask):
    model = tiny(decay=0.9)
    trained(model, 200)
    found = ask(usage, examine(saved(model, 0.9999, 200)))  # the recorded decay is that of something else
    assert isinstance(found, Usage)
    assert found.perplexity == pytest.approx(np.exp(stats.entropy(remembered(model, 0.9))), rel=0.01)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_constant_counts_were_never_written(tiny, examine, ask, value):
    gap = ask(usage, examine(saved(tiny(start=value), 0.9, 500)))
    assert isinstance(gap, Unavailable)
    assert f"never written: all are at {value:g}" in gap.reason


def test_counts_that_start_at_zero_need_nothing_taken_out(make_view):
    counts = np.array([3.0, 1.0, 0.0, 0.0])
    np.testing.assert_array_equal(
        usage.without_start(make_view(np.eye(4), counts, start_count=0.0), start_weight=0.3), counts
    )


def test_codes_that_a_revival_has_just_set_are_not_in_use(make_view):
    votes = usage.without_start(make_view(np.eye(5), [9.0, 7.5, 2.0, 2.0, 2.0], start_count=1.0), None)
    assert votes.tolist() == [9.0, 7.5, 0, 0, 0]


def test_what_is_left_of_the_start_goes_even_where_nothing_is_recorded(make_view):
    votes = usage.without_start(make_view(np.eye(4), [5.01, 2.01, 0.01, 0.01], start_count=1.0), None)
    np.testing.assert_allclose(votes, [5, 2, 0, 0], atol=1e-6)


def test_smoothing_that_is_written_back_makes_no_code_used(make_view):
    decay, epsilon = 0.99, 1e-5
    counts = np.zeros(64)
    votes = np.r_[np.full(8, 32.0), np.zeros(56)]
    for _ in range(3000):
        counts = counts * decay + (1 - decay) * votes
        counts = (counts + epsilon) / (counts.sum() + 64 * epsilon) * counts.sum()
    view = make_view(np.eye(64), counts, start_count=0.0, smoothing=epsilon)
    kept = usage.without_start(view, decay**3000)
    assert np.sum(kept > usage._least_vote(view, kept, decay)) == 8


def test_broken_counts_and_codebooks_are_gaps(tiny, trained, examine, ask):
    model = tiny()
    trained(model, 60)
    model.vq.ema_cluster_size[3] = float("nan")
    assert ask(usage, examine(saved(model))).reason == "EMA counts have non-finite values"
    model.vq.embedding[3] = float("nan")
    assert ask(usage, examine(saved(model))).reason == "codebook has non-finite values"


def test_the_histogram_comes_on_request(tiny, trained, examine, ask):
    model = tiny()
    trained(model, 100)
    assert ask(usage, examine(saved(model, 0.9, 100))).histogram == ()
    full = ask(usage, examine(saved(model, 0.9, 100), histogram=True))
    assert len(full.histogram) == 32 and full.count_quantiles[-1] == max(full.histogram)


def test_counts_that_a_revival_resets_at_every_step(examine, ask):
    """A batch of 64 vectors for 64 codes and a threshold of 60: the library replaces all codes each step."""
    torch.manual_seed(0)
    layer = VectorQuantize(8, codebook_size=64, threshold_ema_dead_code=60)
    for _ in range(5):
        layer(torch.randn(1, 64, 8))
    state = {f"vq.{name}": tensor for name, tensor in layer.state_dict().items()}
    assert state["vq._codebook.cluster_size"].unique().tolist() == [60]
    context = examine({"model": state, "config": {"threshold_ema_dead_code": 60}})
    assert ask(usage, context).reason == "a revival sets the EMA counts of all codes to 60 at every step"
    assert not ask(ema_state, context).never_written
    found = ask(code_expiry, context)
    assert (found.threshold, found.expired) == (60, 1.0)
    (problem,) = vq402_batch_too_small.evaluate(found, None, vq402_batch_too_small.Limits())
    assert "each of the 64 codes has just that count" in problem.message
    assert ask(code_expiry, examine(state)).threshold == 60, "without a record too"


def with_window(window, codes=256, name="quantize.recent"):
    torch.manual_seed(0)
    return {"model": {"quantize.embedding.weight": torch.randn(codes, 4), name: window}}


CHOSEN = torch.from_numpy(np.random.default_rng(0).integers(0, 100, 8_192))


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
@pytest.mark.parametrize("unwritten", [0, 3_000])
@pytest.mark.parametrize("end", [1, -1])
def test_a_window_of_the_last_indices_is_usage_under_any_name(examine, ask, dtype, unwritten, end):
    window = torch.cat([torch.zeros(unwritten), CHOSEN.float()][::end]).to(dtype)
    found = ask(usage, examine(with_window(window)), "quantize")
    assert isinstance(found, Usage) and (found.source, found.used) == ("checkpoint", 100)
    assert found.sample_size == pytest.approx(8_192, abs=1)
    assert found.plug_in_perplexity == pytest.approx(np.exp(stats.entropy(np.bincount(CHOSEN))), rel=1e-3)


@pytest.mark.parametrize(
    "window",
    [
        torch.arange(256 * 8) // 8,  # positions
        torch.randn(8_192),
        CHOSEN + 200,  # beyond K
        CHOSEN - 1,
        torch.randint(0, 200, (256,)),  # one number for each code, such as its age
        CHOSEN[:60],
        torch.zeros(8_192),  # a window that nothing was written to
        CHOSEN.float() + 0.5,
    ],
)
def test_what_is_no_window_of_indices(examine, ask, window):
    found = ask(usage, examine(with_window(window)), "quantize")
    assert isinstance(found, Unavailable) and found.reason == "the layer stores no EMA counts"


def test_another_modules_vector_is_no_window(examine, ask):
    assert isinstance(ask(usage, examine(with_window(CHOSEN, name="decoder.order")), "quantize"), Unavailable)


def test_shares_of_the_usage_serve_as_counts_and_show_a_level_that_was_never_trained(examine, ask):
    torch.manual_seed(0)
    shares = torch.rand(3, 64)
    shares[2] = 1.0
    shares = shares / shares.sum(-1, keepdim=True)
    codes = torch.randn(3, 64, 8)
    state = {"rvq.weight": codes, "rvq.running_mean": codes * shares[..., None], "rvq.frequency": shares}
    context = examine({"model": state})
    first, last = (ask(usage, context, f"rvq[head {level}]") for level in (0, 2))
    assert isinstance(first, Usage) and first.sample_size == 64
    assert first.perplexity == pytest.approx(np.exp(stats.entropy(shares[0])), rel=1e-3)
    assert isinstance(last, Unavailable) and "never written" in last.reason
    levels = [ask(level_use, context, f"rvq[head {level}]") for level in range(3)]
    assert [(use.level, use.written, use.others_written) for use in levels] == [
        (1, True, 1), (2, True, 1), (3, False, 2)
    ]  # fmt: skip

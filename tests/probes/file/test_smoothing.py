"""Trained EMA layers whose smoothing no file records: nobody moved their codes, however many are dead."""

import numpy as np
import pytest
import torch

from vqdoctor.checks.vq303_ema_sums_disagree import CHECK as VQ303
from vqdoctor.checks.vq505_revival_undone import CHECK as VQ505
from vqdoctor.core.check import CannotJudge
from vqdoctor.core.evidence import EmaState, Revival
from vqdoctor.probes import _ema_rows
from vqdoctor.probes.file import ema_state, revival

NAMES = {
    "videogpt": ("embeddings", "N", "z_avg"),
    "bshall": ("embedding", "ema_count", "ema_weight"),
    "zalando": ("_embedding.weight", "_ema_cluster_size", "_ema_w"),
    "first model": ("embedding", "ema_cluster_size", "ema_embed_sum"),
    "zeros": ("embedding", "ema_cluster_size", "ema_cluster_sum"),
    "guess": ("embedding.weight", "cluster_size", "cluster_sum"),
}
RULES = {
    "laplace 1e-5": lambda c: (c + 1e-5) * c.sum() / (c.sum() + len(c) * 1e-5),
    "laplace 1e-7": lambda c: (c + 1e-7) * c.sum() / (c.sum() + len(c) * 1e-7),
    "plain": lambda c: c,
    "added 1e-5": lambda c: c + 1e-5,
    "added 3e-6": lambda c: c + 3e-6,
    "floor 1e-5": lambda c: c.clamp(min=1e-5),
}


def layer(names, rule, *, steps, start=1.0, written_back=False, live=6, codes=64, dim=8, decay=0.95):
    """Train one EMA codebook on clusters that only a few codes are near to, and return its state dict."""
    torch.manual_seed(0)
    embedding = torch.randn(codes, dim)
    counts, sums = torch.full((codes,), start), embedding * start
    centres = embedding[:live] + 0.3 * torch.randn(live, dim)
    for _ in range(steps):
        z = centres[torch.randint(live, (256,))] + 0.05 * torch.randn(256, dim)
        chosen = torch.nn.functional.one_hot(torch.cdist(z, embedding).argmin(1), codes).float()
        counts = decay * counts + (1 - decay) * chosen.sum(0)
        sums = decay * sums + (1 - decay) * chosen.T @ z
        divisor = RULES[rule](counts)
        counts = divisor if written_back else counts
        embedding = sums / divisor[:, None]
    return {f"vq.{name}": tensor for name, tensor in zip(names, (embedding, counts, sums), strict=True)}


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("steps", [150, 300, 450])  # dead counts of about 5e-4, 2e-7 and 1e-10
def test_a_trained_and_collapsed_layer_is_not_said_to_be_moved(examine, ask, names, rule, steps):
    context = examine(layer(NAMES[names], rule, steps=steps))
    assert not VQ505.judge({Revival: ask(revival, context)})
    assert not VQ303.judge({EmaState: ask(ema_state, context)})


MORE_NAMES = {
    "encodec": ("_codebook.embed", "_codebook.cluster_size", "_codebook.embed_avg"),
    "taming": ("embedding.weight", "embedding.cluster_size", "embedding.embed_avg"),
    "rosinality": ("embed", "cluster_size", "embed_avg"),
    "pythae": ("embeddings", "cluster_size", "ema_embed"),
    "lucidrains": ("_codebook.embed", "_codebook.cluster_size", "_codebook.embed_avg"),
    "home made": ("codebook", "ema_counts", "ema_embed_sum"),
}


@pytest.mark.parametrize("names", MORE_NAMES)
@pytest.mark.parametrize("steps", [150, 450])
def test_nor_is_one_of_another_layout(examine, ask, names, steps):
    state = layer(MORE_NAMES[names], "laplace 1e-5", steps=steps)
    if names == "rosinality":
        state = {key: t.T.contiguous() if t.ndim == 2 else t for key, t in state.items()}
    if names == "lucidrains":
        state = {key: tensor[None] for key, tensor in state.items()}
    context = examine(state)
    assert context.views[0].num_codes == 64 and context.views[0].sums is not None
    assert not VQ505.judge({Revival: ask(revival, context)})
    assert not VQ303.judge({EmaState: ask(ema_state, context)})


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("rule", ["laplace 1e-5", "laplace 1e-7"])
def test_a_smoothing_written_back_into_the_counts_is_no_move_either(examine, ask, names, rule):
    context = examine(layer(NAMES[names], rule, steps=450, written_back=True))
    assert not VQ505.judge({Revival: ask(revival, context)})


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("rule", RULES)
def test_codes_in_use_that_were_moved_alone_are_still_seen(examine, ask, names, rule):
    saved = layer(NAMES[names], rule, steps=300)
    saved[f"vq.{NAMES[names][0]}"][:4] += 3.0
    item = ask(revival, examine(saved))
    assert item.returned == 4
    assert VQ505.judge({Revival: item})


def test_dead_codes_that_were_moved_alone_are_seen_where_the_smoothing_is_known(examine, ask):
    saved = layer(("embedding", "ema_cluster_size", "ema_embedding_sum"), "laplace 1e-5", steps=300)
    saved["vq.embedding"][6:40] = torch.from_numpy(np.random.default_rng(0).normal(size=(34, 8))).float()
    assert ask(revival, examine(saved)).returned == 34


def averaged(moved=0, drift=1.3):
    """Return averages of codes, counts and sums over a training whose z_e drifts, some codes placed anew."""
    rng = np.random.default_rng(0)
    counts = np.exp(rng.normal(size=(10, 64, 1)))
    time = np.linspace(0, 1, 10)[:, None, None]
    codes = rng.normal(size=(64, 8)) + drift * time * rng.normal(size=(64, 8))
    found = [array.mean(axis=0) for array in (codes, counts[..., 0], codes * counts)]
    found[0][:moved] = rng.normal(size=(moved, 8))
    keys = ("vq.embedding", "vq.ema_cluster_size", "vq.ema_embed_sum")
    return {key: torch.from_numpy(array).float() for key, array in zip(keys, found, strict=True)}


def test_averaged_weights_are_not_said_to_be_moved(examine, ask):
    context = examine(averaged())
    assert ask(ema_state, context).blurred
    assert ask(ema_state, context).sums_disagreement > 0.05
    with pytest.raises(CannotJudge, match="averages of weights"):
        VQ303.judge({EmaState: ask(ema_state, context)})
    assert "averages of weights" in ask(revival, context).reason


@pytest.mark.parametrize(
    ("dtype", "told"), [(torch.float32, "blurred"), (torch.bfloat16, "exact"), (torch.float16, "exact")]
)
def test_a_short_average_is_told_by_its_precision(examine, ask, dtype, told):
    """Most of its codes lie within 1 % of their means, which numbers of 16 bits do as well."""
    saved = averaged(drift=0.02)
    away = saved["vq.embedding"] - saved["vq.ema_embed_sum"] / saved["vq.ema_cluster_size"][:, None]
    assert 1e-3 < (away.norm(dim=1) / saved["vq.embedding"].norm(dim=1)).median() < 0.01
    state = ask(ema_state, examine({key: tensor.to(dtype) for key, tensor in saved.items()}))
    assert state.blurred is (told == "blurred")


@pytest.mark.parametrize("moved", [0, 32])
def test_a_part_of_many_codes_tells_the_same(examine, ask, monkeypatch, moved):
    """All nearest means of 200,000 codes took a minute and a half: what is asked must not grow with K."""
    sizes, search = [], _ema_rows.nearest

    def spy(vectors, codes):
        sizes.append(len(vectors))
        return search(vectors, codes)

    monkeypatch.setattr(_ema_rows, "nearest", spy)
    monkeypatch.setattr(_ema_rows, "ASKED", 20)
    assert ask(ema_state, examine(averaged(moved=moved))).blurred is not bool(moved)
    assert sizes and set(sizes) == {20}


def test_codes_that_were_placed_anew_are_no_average(examine, ask):
    context = examine(averaged(moved=32))
    assert not ask(ema_state, context).blurred
    assert VQ303.judge({EmaState: ask(ema_state, context)})
    assert VQ505.judge({Revival: ask(revival, context)})


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_numbers_of_8_bits_are_no_moves(examine, ask, dtype):
    saved = layer(NAMES["first model"], "laplace 1e-5", steps=300, live=40)
    context = examine({key: tensor.to(dtype) for key, tensor in saved.items()})
    assert ask(ema_state, context).blurred
    assert "near its own mean" in ask(revival, context).reason

"""A codebook and its statistics under names that say nothing prove themselves by their relation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from stored import Stored
from torch import nn

from vqdoctor.layouts import find_quantizers
from vqdoctor.layouts.relation import BY_RELATION
from vqdoctor.layouts.stacks import stacks

CODES, DIM = 32, 6


def statistics(*lead: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    counts = torch.rand(*lead, CODES, generator=generator) + 0.01
    return torch.randn(*lead, CODES, DIM, generator=generator), counts / counts.sum(-1, keepdim=True)


def found(state: dict[str, torch.Tensor]) -> Any:
    return find_quantizers({name: Stored(tensor) for name, tensor in state.items()}).views


@pytest.mark.parametrize("factor", [1.0, 0.01, 800.0])
def test_levels_in_one_buffer_with_shares_of_the_usage(factor: float) -> None:
    codes, shares = statistics(4)
    views = found(
        {
            "bottle.zeta": codes,
            "bottle.other": codes * (shares + 1e-10)[..., None] / factor,
            "bottle.how_often": shares,
            "decoder.0.weight": torch.randn(8, DIM),
        }
    )
    assert [view.name for view in views] == [f"bottle[head {level}]" for level in range(4)]
    assert {view.layout for view in views} == {BY_RELATION}
    for level, view in enumerate(views):
        assert np.array_equal(view.codebook, codes[level].numpy())
        assert np.array_equal(view.counts, shares[level].numpy())
        assert view.keys == {
            "codebook": "bottle.zeta", "sums": "bottle.other", "counts": "bottle.how_often"
        }  # fmt: skip
    assert stacks(views) == [list(views)]


def test_statistics_of_an_embedding_that_its_name_gives_away() -> None:
    codes, shares = statistics()
    state = {"vq.embedding.weight": codes, "vq.m": codes * 640 * shares[:, None], "vq.n": 640 * shares}
    (view,) = found(state)
    assert (view.name, view.keys["counts"], view.keys["sums"]) == ("vq", "vq.n", "vq.m")


def idle(module: str, count: float) -> dict[str, torch.Tensor]:
    """An EMA that is at its start: counts and sums of zero, or counts of one and sums that are the codes."""
    codes = statistics()[0]
    return {
        f"{module}.code": codes,
        f"{module}.n": torch.full((CODES,), count),
        f"{module}.m": codes * count,
        "decoder.0.weight": torch.randn(8, DIM),
    }


@pytest.mark.parametrize(("module", "count"), [("rvq.stages.0", 0.0), ("rvq.stages.0", 1.0), ("dic", 1.0)])
def test_an_ema_that_never_ran_is_known_by_its_start(module: str, count: float) -> None:
    (view,) = found(idle(module, count))
    assert (view.name, view.layout) == (module, BY_RELATION)
    assert view.keys == {"codebook": f"{module}.code", "counts": f"{module}.n", "sums": f"{module}.m"}


def test_tensors_of_zeros_and_ones_prove_no_ema() -> None:
    assert found(idle("dic", 0.0)) == ()  # a linear map with a bias and an adapter that starts at zero
    pruned = idle("dic", 1.0) | {"dic.m": torch.ones(CODES, DIM)}
    assert found(pruned) == ()
    assert found(pruned | {"dic.code": torch.ones(CODES, DIM)}) == ()


def test_tables_of_two_widths_prove_no_ema() -> None:
    codes, shares = statistics()
    assert found({"dic.words": codes, "dic.hits": shares, "dic.total": torch.cat([codes, codes], 1)}) == ()


def test_counts_that_have_hardly_moved_prove_an_ema_and_even_ones_do_not() -> None:
    codes, shares = statistics()
    counts = 0.993 + 0.01 * shares
    state = {"dic.words": codes, "dic.hits": counts, "dic.total": codes * counts[:, None]}
    (view,) = found(state)
    assert view.keys == {"codebook": "dic.words", "counts": "dic.hits", "sums": "dic.total"}
    assert found(state | {"dic.hits": torch.full((CODES,), 0.993)}) == ()


def test_tensors_of_fitting_shapes_alone_prove_nothing() -> None:
    codes, shares = statistics()
    lstm = nn.LSTM(DIM, DIM, 1, bias=True)
    states = (
        {f"lstm.{name}": tensor for name, tensor in lstm.state_dict().items()},
        {"a.x": codes, "a.y": torch.randn(CODES, DIM), "a.n": shares},
        {"a.x": codes, "a.y": codes * torch.full((CODES, 1), 0.5), "a.n": torch.full((CODES,), 0.5)},
        {"a.x": torch.zeros(CODES, DIM), "a.y": torch.zeros(CODES, DIM), "a.n": shares},
        {"a.x": codes * float("nan"), "a.y": codes, "a.n": shares},
    )
    for state in states:
        assert found(state) == ()


def test_a_collapse_hides_no_statistics_whose_smoothing_is_small() -> None:
    """One code has all vectors, and the update normalised the counts without their sum."""
    codes, shares = statistics()
    counts = 1e-3 * shares
    counts[0] = 1562.0
    smoothed = (counts + 1e-10) / (counts.sum() + CODES * 1e-10)
    state = {"vq.codebook": codes, "vq.usage_ema": counts, "vq.codes_ema": codes * smoothed[:, None]}
    (view,) = found(state)
    assert view.keys == {"codebook": "vq.codebook", "counts": "vq.usage_ema", "sums": "vq.codes_ema"}


def clusterings(codes: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return counts and means of random vectors around 32 places, and other vectors as codes."""
    generator = torch.Generator().manual_seed(1)
    places = torch.randn(codes, DIM, generator=generator)
    means = places + 0.1 * torch.randn(codes, DIM, generator=generator)
    written = (places + 0.1 * torch.randn(codes, DIM, generator=generator)).flip(0)
    return 30 * torch.rand(codes, generator=generator) + 1, means, written


def test_codes_written_without_their_sums_are_known_by_sums_that_grow_with_the_counts() -> None:
    counts, means, codes = clusterings(64)
    sums = means * counts[:, None]
    (view,) = found({"vq.codebook": codes, "vq.usage_ema": counts, "vq.codes_ema": sums})
    assert view.keys == {"codebook": "vq.codebook", "counts": "vq.usage_ema", "sums": "vq.codes_ema"}
    assert np.array_equal(view.sums, sums.numpy())


@pytest.mark.parametrize(
    "why", ["codes that an average follows", "elsewhere", "another size", "no quantizer", "names"]
)
def test_other_tables_beside_counts_are_no_sums(why: str) -> None:
    counts, means, codes = clusterings(64)
    sums, owner, name = means * counts[:, None], "vq", "codes_ema"
    match why:
        case "codes that an average follows":
            sums = codes + 0.01 * means
        case "elsewhere":
            sums = (means + 5) * counts[:, None]
        case "another size":
            sums = 0.1 * sums
        case "no quantizer":
            owner = "router"
        case "names":
            name = "gain"
    views = found({f"{owner}.codebook": codes, f"{owner}.usage": counts, f"{owner}.{name}": sums})
    assert all("sums" not in view.keys for view in views)


WRONG = {
    "divided by the mean of the counts": lambda s, c: s / c.mean(),
    "never divided": lambda s, c: s.clone(),
    "divided by the counts + 1": lambda s, c: s / (c + 1)[:, None],
    "put on a sphere": lambda s, c: torch.nn.functional.normalize(s / c[:, None], dim=1),
    "divided by one batch's counts + 1": lambda s, c: s / ((7 * c).round() + 1)[:, None],
}
"""What an update makes of sums [K, D] and counts [K], in the forms in which people get it wrong."""


@pytest.mark.parametrize("rule", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("order", [("table", "hits", "mass"), ("mass", "hits", "table")])
def test_a_wrong_rule_proves_an_ema_under_any_names(rule: Any, order: tuple[str, ...]) -> None:
    codes, shares = statistics()
    counts = 40 * shares
    sums = codes * counts[:, None]
    stored = {"table": rule(sums, counts), "hits": counts, "mass": sums}
    (view,) = found({f"bottleneck.{name}": stored[name] for name in order})
    assert view.layout == BY_RELATION
    assert view.keys == {
        "codebook": "bottleneck.table", "counts": "bottleneck.hits", "sums": "bottleneck.mass"
    }  # fmt: skip


def test_parallel_tables_that_are_no_ema() -> None:
    codes, shares = statistics()
    near = codes * 0.5 + 1e-3 * torch.randn(CODES, DIM, generator=torch.Generator().manual_seed(1))
    states = (
        {"head.tied": codes, "head.weight": codes, "head.bias": shares},
        {"vq.x": codes, "vq.x_shadow": near, "vq.bias": shares},
        {"vq.x": codes, "vq.x_half": codes * 0.5, "vq.bias": shares - 0.1},
        {"vq.x": codes, "vq.x_half": codes * 0.5, "vq.scale": torch.ones(CODES)},
        {"vq.x": codes, "vq.x_scaled": codes * torch.rand(CODES, 1) ** 3, "vq.n": shares},
    )
    for state in states:
        assert found(state) == ()


def test_sums_times_the_counts_are_codes_where_the_names_say_so() -> None:
    codes, shares = statistics()
    counts = 500 * shares
    times = codes * (counts / counts.sum())[:, None]
    (view,) = found({"vq.codebook": times, "vq.usage_ema": counts, "vq.codes_ema": codes})
    assert view.keys == {"codebook": "vq.codebook", "counts": "vq.usage_ema", "sums": "vq.codes_ema"}
    (sound,) = found({"vq.codes_ema": codes, "vq.n": counts, "vq.codebook": codes * counts[:, None]})
    assert sound.keys["codebook"] == "vq.codes_ema"


def collapsed(count: float, rows: int = 3, off: float = 0.0) -> dict[str, torch.Tensor]:
    """An EMA of which all codes but the first few were left long ago: their counts have decayed so far."""
    codes = statistics()[0]
    counts = torch.full((CODES,), count)
    counts[:rows] = torch.arange(20.0, 20.0 + 30 * rows, 30)
    sums = codes * counts[:, None]
    return {"bottle.total": sums * (1 + off), "bottle.mass": counts, "bottle.proto": codes}


@pytest.mark.parametrize("count", [4e-45, 1e-30, 1e-4])
@pytest.mark.parametrize("order", [1, -1])
def test_codes_left_long_ago_do_not_turn_codes_and_sums_around(count: float, order: int) -> None:
    """All dead codes have one count, and so fit either way round, however small it is."""
    (view,) = found(dict(list(collapsed(count).items())[::order]))
    assert view.keys == {"codebook": "bottle.proto", "counts": "bottle.mass", "sums": "bottle.total"}


def test_a_few_codes_in_use_prove_the_relation_only_where_it_is_exact() -> None:
    assert len(found(collapsed(4e-45, rows=1))) == 0  # six numbers
    assert len(found(collapsed(4e-45, rows=2))) == 1
    assert found(collapsed(4e-45, off=0.01)) == ()

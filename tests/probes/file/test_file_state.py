import argparse

import numpy as np
import pytest
import torch

from vqdoctor.core.evidence import NonFinite, Unavailable
from vqdoctor.probes.file import (
    FileContext,
    all_probes,
    codebook_geometry,
    ema_state,
    foreign_objects,
    non_finite,
)


def test_geometry_of_a_trained_layer(tiny, trained, examine, ask):
    model = tiny()
    trained(model, 400)
    found = ask(codebook_geometry, examine(model.state_dict()))
    codes = model.vq.embedding.numpy()
    norms = np.linalg.norm(codes, axis=1)
    assert (found.sample_size, found.dim, found.dtype) == (32, 6, "float32")
    assert found.rms == pytest.approx(np.sqrt(np.mean(codes**2)), rel=1e-5)
    assert (found.norm_min, found.norm_median, found.norm_max) == pytest.approx(
        (norms.min(), np.median(norms), norms.max()), rel=1e-5
    )
    assert found.mean_norm == pytest.approx(np.linalg.norm(codes.mean(0)), rel=1e-5)
    assert found.zero_rows == np.sum(norms < 1e-6 * np.median(norms)) > 0  # decayed with their sums
    assert 1 < found.effective_rank <= 6 and not found.unit_rows


def test_blown_up_rows_are_told_from_live_ones_by_their_counts(examine, ask):
    torch.manual_seed(0)
    codes, counts = torch.randn(64, 8), torch.zeros(64)
    counts[:10] = torch.rand(10) + 3
    codes[10:] *= 2e5  # E0 · d^t / ε: never chosen, and the majority
    state = {"vq.embedding": codes, "vq.ema_cluster_size": counts, "vq.ema_embedding_sum": codes.clone()}
    found = ask(codebook_geometry, examine(state))
    assert (found.oversized_rows, found.zero_rows, found.duplicate_rows) == (54, 0, 0)


def test_faded_rows_are_no_copies(examine, ask):
    codes = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    codes[:20] *= 1e-5
    codes[50] = codes[51]
    assert ask(codebook_geometry, examine({"vq.embedding.weight": codes})).duplicate_rows == 1


def test_a_cosine_codebook(examine, ask):
    codes = torch.nn.functional.normalize(torch.randn(64, 8), dim=1)
    codes[3] = codes[9]
    found = ask(codebook_geometry, examine({"vq.embedding.weight": codes.half()}))
    assert found.unit_rows and found.duplicate_rows == 1 and found.dtype == "float16"


def test_ema_state_of_a_trained_layer(tiny, trained, examine, ask):
    model = tiny(decay=0.99)
    trained(model, 120)
    found = ask(ema_state, examine({"model": model.state_dict(), "config": {"vq_decay": 0.99}, "step": 120}))
    counts = model.vq.ema_cluster_size.numpy()
    assert (found.total, found.count_min, found.count_max) == pytest.approx(
        (counts.sum(), counts.min(), counts.max()), rel=1e-5
    )
    assert found.start_weight == pytest.approx(0.99**120)
    assert found.worst_disagreement < 1e-5 and found.compared_rows > 5
    assert not found.never_written


def test_a_codebook_written_without_its_sums_disagrees(tiny, trained, examine, ask):
    model = tiny()
    trained(model, 120)
    model.vq.embedding.copy_(torch.randn(32, 6))
    assert ask(ema_state, examine(model.state_dict())).sums_disagreement > 0.3


def test_rows_that_hardly_count_do_not_disagree(tiny, trained, examine, ask):
    model = tiny()
    trained(model, 120)
    rare = model.vq.ema_cluster_size < 1e-3
    assert rare.any()
    model.vq.embedding[rare] = 5.8
    assert ask(ema_state, examine(model.state_dict())).worst_disagreement < 1e-5


@pytest.mark.parametrize("start", [0, 1])
def test_saved_before_the_first_update(tiny, examine, ask, start):
    found = ask(ema_state, examine(tiny(start=start).state_dict()))
    assert found.never_written and found.sums_disagreement is None and found.start_weight is None


def test_no_counts_no_state(examine, ask):
    gap = ask(ema_state, examine({"vq.embedding.weight": torch.randn(8, 4)}))
    assert isinstance(gap, Unavailable) and "no EMA counts" in gap.reason


def test_non_finite_values_are_counted_where_they_are(tiny, examine, ask):
    model = tiny()
    model.vq.embedding[0, :3] = float("nan")
    model.vq.ema_cluster_size[1] = float("inf")
    model.decoder[0].weight.data[2, 2] = float("-inf")
    context = examine(model.state_dict())
    layer, rest = ask(non_finite, context), ask(non_finite, context, layer=None)
    assert (layer.nan, layer.inf, layer.tensor_count, layer.sampled) == (3, 1, 2, False)
    assert layer.tensors == ("vq.embedding", "vq.ema_cluster_size")
    assert layer.sample_size == 32 * 6 + 32 + 32 * 6
    assert (rest.nan, rest.inf, rest.tensors) == (0, 1, ("decoder.0.weight",))


@pytest.mark.parametrize("blank", [True, False])
def test_what_holds_no_values_yet_is_not_counted(blank, examine, ask):
    state = {
        "vq._codebook.embed": torch.randn(1, 16, 4),
        "vq._codebook.codebook_mean": torch.full((1, 1, 4), torch.nan),  # as torch.empty may leave it
        "vq._codebook.codebook_mean_needs_init": torch.tensor(blank),
    }
    assert ask(non_finite, examine(state), layer=None).nan == (0 if blank else 4)


@pytest.mark.parametrize("of", ["trainer", "model", "optimizer"])
def test_a_trainers_own_numbers_are_not_the_models(tiny, trained, examine, ask, of):
    """Lightning's ModelCheckpoint without a monitor keeps kth_value = inf in every healthy run."""
    model = tiny()
    optimizer = trained(model, 3)
    state, infinite = {name: t.clone() for name, t in model.state_dict().items()}, torch.tensor(float("inf"))
    if of == "model":
        state["decoder.0.weight"][0, 0] = infinite
    if of == "optimizer":
        optimizer.state_dict()["state"][0]["exp_avg_sq"][0] = infinite
    saved = {
        "epoch": 2,
        "state_dict": state,
        "loops": {"fit_loop": {"state_dict": {}, "best": infinite}},
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"kth_value": infinite, "best_k_models": {}}},
        "optimizer_states": [optimizer.state_dict()],
        "best_val_loss": infinite,
        "history": {"val_loss": [infinite, torch.tensor(float("nan"))]},
        "metrics": {"fid": torch.tensor([float("nan")])},
    }
    found = ask(non_finite, examine(saved), layer=None)
    assert (found.inf > 0, found.nan) == (of != "trainer", 0)
    flat = {**saved.pop("state_dict"), "best_loss": infinite}
    assert (ask(non_finite, examine(flat), layer=None).inf > 0) == (of == "model")


def test_verify_looks_at_every_value(examine, ask):
    big = torch.zeros(3_000_000)
    big[1_234_567] = float("nan")
    state = {"vq.embedding.weight": torch.randn(8, 4), "big": big, "ids": torch.arange(9)}
    sampled, whole = (ask(non_finite, examine(state, verify=v), layer=None) for v in (False, True))
    assert sampled.sampled and sampled.sample_size < 10_000
    assert (whole.nan, whole.sample_size, whole.sampled) == (1, 3_000_000, False)


def test_foreign_objects_are_named(examine, ask):
    state = {"vq.embedding.weight": torch.randn(8, 4)}
    found = ask(foreign_objects, examine({"model": state, "args": argparse.Namespace(a=1)}), layer=None)
    assert found.harmless == ("argparse.Namespace",) and not found.dangerous and found.sample_size == 1
    assert ask(foreign_objects, examine(state), layer=None).sample_size == 0


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_every_probe_answers_for_every_layer_whatever_the_file_holds(tiny, examine, poison):
    healthy, sick = tiny(), tiny()
    for buffer in sick.vq.buffers():
        buffer[0] = poison
    for model in (healthy, sick):
        context = examine({"model": model.state_dict()})
        for probe in all_probes():
            items = list(probe.measure(context))
            kinds = {kind.kind for kind in probe.kinds}
            assert items and {item.kind for item in items} <= kinds
            on_layer = [item for item in items if item.layer == "vq"]
            assert len(on_layer) == (0 if all(item.layer is None for item in items) else 1)
            if model is sick and on_layer and not isinstance(on_layer[0], NonFinite):
                assert isinstance(on_layer[0], Unavailable)


def test_a_file_without_layers_still_has_its_own_evidence(examine):
    context = examine({"fc.weight": torch.randn(3, 3)})
    assert isinstance(context, FileContext) and context.views == ()
    kinds = [item.kind for probe in all_probes() for item in probe.measure(context)]
    assert sorted(kinds) == [
        *("foreign-objects", "non-finite", "optimizer-memory", "recorded-scores", "step-size"),
        "training-record",
    ]

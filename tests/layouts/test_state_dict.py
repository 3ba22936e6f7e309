"""Containers are split and wrappers stripped, whatever their order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vqdoctor.layouts import find_quantizers, state_dicts, strip_prefixes

MODEL = {
    "encoder.0.weight": (8, 1, 3, 3),
    "vq.embedding": (12, 5),
    "vq.ema_cluster_size": (12,),
    "vq.ema_embedding_sum": (12, 5),
    "rvq.layers.0._codebook.inited": (1,),
    "rvq.layers.0._codebook.embed": (6, 3),
    "rvq.layers.0._codebook.embed_avg": (6, 3),
    "rvq.layers.0._codebook.cluster_size": (6,),
    "quantize.embedding.weight": (9, 4),
    "decoder.0.weight": (1, 8, 3, 3),
}
OPTIMIZER = {
    "state.0.exp_avg": (12, 5),
    "state.0.exp_avg_sq": (12, 5),
    "state.0.step": (),
    "quantizer.codebook": (12, 5),
}
WRAPPERS = ["module.", "_orig_mod.", "_forward_module.", "state_dict.", "model.", "ema_model.", "generator."]
stacks = st.lists(st.sampled_from(WRAPPERS), max_size=5).map("".join)


def seen(tensors):
    views = find_quantizers(tensors).views
    return [(v.name, v.layout, v.num_codes, v.dim, v.codebook.tolist()) for v in views]


@given(stack=stacks, optimizer=st.sampled_from(["", "optimizer.", "optimizer_states.0.", "optim_g.", "opt."]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_stack_of_wrappers_changes_what_is_seen(stack, optimizer, fake):
    tensors = fake(MODEL, stack)
    if optimizer:
        tensors |= fake(OPTIMIZER, optimizer)
    elif not stack:
        assert [name for name, *_ in seen(tensors)] == ["vq", "rvq.layers.0", "quantize"]
    assert seen(tensors) == seen(fake(MODEL))
    for view in find_quantizers(tensors).views:
        raw = view.keys["codebook"]
        assert raw.startswith(stack)
        np.testing.assert_array_equal(view.codebook, tensors[raw].values)


@given(stack=stacks, inner=st.sampled_from(["_orig_mod.", "module.", "_fsdp_wrapped_module."]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_wrapper_round_one_part_is_stripped_too(stack, inner, fake):
    shapes = {
        (key.replace("vq.", f"vq.{inner}", 1) if key.startswith("vq.") else key): shape
        for key, shape in MODEL.items()
    }
    assert seen(fake(shapes, stack)) == seen(fake(MODEL))


def test_entries_keep_the_files_order_and_the_raw_keys(fake):
    (state,) = state_dicts(fake(MODEL, "state_dict.module."))
    assert state.prefix == "state_dict.module."
    assert list(state.entries) == list(MODEL)
    assert state.raw == {key: f"state_dict.module.{key}" for key in MODEL}


@pytest.mark.parametrize(
    "prefix",
    [
        "optimizer.",
        "optimizer_states.0.",
        "optim_g.",
        "opt.",
        "opt_vq_model.",
        "last_optimizer_state.",
        "g_optimizer.",
    ],
)
def test_optimizers_are_no_state_dicts(prefix, fake):
    tensors = fake(MODEL, "model.") | fake(OPTIMIZER, prefix)
    (state,) = state_dicts(tensors)
    assert list(state.entries) == list(MODEL)


def test_adam_moments_are_left_out_wherever_they_stand(fake):
    entries = {"vq.embedding": (4, 2), "trainer.state.0.exp_avg": (4, 2), "trainer.state.0.step": ()}
    assert [list(s.entries) for s in state_dicts(fake(entries))] == [["vq.embedding"]]


def test_a_part_of_the_model_may_have_a_wrappers_name(fake):
    """Net(model=…, vq=…) is one model, whose keys must not be torn apart."""
    shapes = {"model.0.weight": (8, 8), "model.0.bias": (8,), "vq.embedding": (12, 5), "step": ()}
    (state,) = state_dicts(fake(shapes))
    assert list(state.entries) == ["0.weight", "0.bias", "vq.embedding", "step"]
    (state,) = state_dicts(fake(shapes, "state_dict.") | fake(OPTIMIZER, "optimizer."))
    assert list(state.entries) == ["0.weight", "0.bias", "vq.embedding", "step"]


def test_stripping_never_makes_two_keys_one(fake):
    shapes = {"model.vq.embedding": (12, 5), "vq.embedding": (6, 3)}
    (state,) = state_dicts(fake(shapes))
    assert list(state.entries) == list(shapes)


def test_parts_that_are_saved_side_by_side_are_one_model(fake):
    shapes = {"encoder.0.weight": (8, 8), "vq_embedding.layers.0._codebook.embed": (1, 12, 5)}
    (state,) = state_dicts(fake(shapes) | fake(OPTIMIZER, "optimizer."))
    assert list(state.entries) == list(shapes)


def test_a_running_average_is_named_and_not_judged(fake):
    for main, copy in [
        ("state_dict.", "state_dict_ema."),
        ("model.", "ema."),
        ("online_model.", "ema_model."),
        ("generator.", "generator_ema."),
    ]:
        for first, second in [(main, copy), (copy, main)]:
            found = find_quantizers(fake(MODEL, first) | fake(MODEL, second))
            assert [v.name for v in found.views] == ["vq", "rvq.layers.0", "quantize"]
            assert all(v.keys["codebook"].startswith(main) for v in found.views)
            (note,) = found.notes
            assert f'"{copy}*" holds a running average' in note
            assert f'"{main}*"' in note


def test_a_running_average_alone_is_judged(fake):
    """LitEma keeps parameters only; where the codebook stands in the average alone, it counts."""
    tensors = fake({"encoder.0.weight": (8, 8)}, "model.") | fake(MODEL, "ema.")
    found = find_quantizers(tensors)
    assert [v.name for v in found.views] == ["vq", "rvq.layers.0", "quantize"]


def test_lit_emas_flattened_names_are_not_judged(fake):
    """Nor is what only the average shows: it is the model that is judged."""
    shadow = {"quantizeembeddingweight": (9, 4), "codebook": (3, 2), "decay": ()}
    found = find_quantizers(fake(MODEL, "state_dict.") | fake(shadow, "state_dict.model_ema."))
    assert [v.name for v in found.views] == ["vq", "rvq.layers.0", "quantize"]


def test_a_second_container_that_repeats_the_model_is_named(fake):
    found = find_quantizers(fake(MODEL, "state_dict.") | fake(MODEL, "best_state."))
    assert len(found.views) == 3
    assert all(v.keys["codebook"].startswith("state_dict.") for v in found.views)
    assert found.notes == ('"best_state.*" repeats layers; judged is "state_dict.*"',)


def test_a_trainers_numbers_are_no_part_of_the_model(fake):
    trainers = fake({"callbacks.EMA.decay": (), "best_score": (), "rng_states.cpu": (16,), "loss.val": (3,)})
    parts = fake({"encoder.0.weight": (8, 8), "vq.embedding": (12, 5), "log_scale": ()})
    model, trainer = state_dicts(trainers | parts | fake(OPTIMIZER, "optimizer."))
    assert list(model.entries) == list(parts) and not model.is_trainers
    assert list(trainer.entries) == list(trainers) and trainer.is_trainers
    (model,) = state_dicts(fake({"loss.perceptual.weight": (4, 4), "steps": (), "vq.embedding": (12, 5)}))
    assert len(model.entries) == 3, "without a container these names may be the model's own"


def test_layers_of_two_models_with_one_name_keep_apart(fake):
    other = {"vq.embedding": (7, 2), "vq.ema_cluster_size": (7,), "vq.ema_embedding_sum": (7, 2)}
    found = find_quantizers(fake(MODEL, "state_dict.") | fake(other, "generator."))
    assert [v.name for v in found.views] == ["vq", "rvq.layers.0", "quantize", "generator.vq.embedding"]


def test_a_discriminator_beside_the_model_stays_out_of_it(fake):
    tensors = fake(MODEL, "generator.") | fake({"0.weight": (4, 4)}, "discriminators.msd.")
    tensors |= fake(OPTIMIZER, "optim_g.")
    first, second = state_dicts(tensors)
    assert list(first.entries) == list(MODEL)
    assert list(second.entries) == ["discriminators.msd.0.weight"]


@pytest.mark.parametrize(
    ("key", "clean"),
    [
        ("module.vq.embedding", "vq.embedding"),
        ("state_dict.model._orig_mod.vq._codebook.embed", "vq._codebook.embed"),
        ("encoder._orig_mod.conv.weight", "encoder.conv.weight"),
        ("model", "model"),
        ("vq.embedding", "vq.embedding"),
    ],
)
def test_strip_prefixes(key, clean):
    assert strip_prefixes(key) == clean

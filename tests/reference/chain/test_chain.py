"""The chain as a whole: its sequences, its stages, the names in its checkpoint, a short training."""

import re

import numpy as np
import pytest
import torch

from vqdoctor.models.task import Task
from vqdoctor.reference import BUILTIN_TASKS
from vqdoctor.reference.chain.model import ChainClassifier
from vqdoctor.reference.chain.sequences import LEAST, LENGTH, MOST, durations, stitch
from vqdoctor.reference.chain.task import SEQUENCES


def test_a_sequence_is_of_one_person_and_joins_lie_where_the_labels_change(windows, sequences):
    x, y = sequences["x"], sequences["y"]
    assert x.shape == (380, 3, 2, LENGTH) and y.shape == (380, LENGTH // 4)
    lengths = durations(y) * 4
    assert lengths.min() >= LEAST and lengths.max() <= MOST
    # every stretch is found in a recording of the person's split, sample for sample
    for row in (0, 250, 379):
        known = windows["split"] == sequences["split"][row]
        start, people = 0, []
        for end in (*np.flatnonzero(np.diff(y[row])) + 1, LENGTH // 4):
            stretch = x[row, ..., start * 4 : end * 4]
            places = [
                windows["person"][windows["recording"] == number][0]
                for number in np.unique(windows["recording"][known & (windows["y"] == y[row, start])])
                if _within(stretch, np.concatenate(windows["x"][windows["recording"] == number], axis=-1))
            ]
            people.append(set(map(int, places)))
            start = end
        assert set.intersection(*people)


def _within(stretch, series):
    series, first = series.astype(np.float32), stretch[..., 0]
    places = np.flatnonzero((series == first[..., None]).all(axis=(0, 1)))
    length = stretch.shape[-1]
    return any(np.array_equal(series[..., at : at + length], stretch) for at in places)


def test_sequences_are_the_same_for_the_same_seed(windows, sequences):
    again, other = stitch(windows, step=4), stitch(windows, step=4, seed=1)
    assert np.array_equal(again["x"], sequences["x"]) and not np.array_equal(other["x"], sequences["x"])


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"person": np.zeros(5, dtype=np.uint8)}, "not of the same length"),
        ({"x": np.zeros((1602, 3, 2, 1), dtype=np.float16)}, "shorter than an activity"),
    ],
)
def test_windows_that_make_no_sequences_are_refused(windows, changed, told):
    with pytest.raises(ValueError, match=told):
        stitch({**windows, **changed}, step=4)


@pytest.mark.parametrize("shape", [(4, 3, 2, 321), (4, 3, 4, 320), (4, 5, 2, 320), (4, 3, 320)])
def test_sequences_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match="not sequences"):
        SEQUENCES.make({}, {"x": np.zeros(shape), "y": np.zeros((4, 80), dtype=np.int64)})


EXPECTED = """
encoder vq hdp.base_hdp.stick_breaking.log_alpha hdp.base_hdp.stick_breaking.beta_a
hdp.base_hdp.stick_breaking.beta_b hdp.base_hdp.cluster_centers hdp.base_hdp.cluster_log_vars
hdp.base_hdp.current_temperature hdp.group_hdp.stick_breaking.log_alpha
hdp.group_hdp.stick_breaking.beta_a hdp.group_hdp.stick_breaking.beta_b hdp.group_hdp.cluster_centers
hdp.group_hdp.cluster_log_vars hdp.group_hdp.current_temperature hdp.residual_weight
hsmm.duration_model.log_r hsmm.duration_model.logit_p hsmm.transition_model.log_trans_matrix
hsmm.transition_model.self_trans_mask hsmm.emission_net hsmm.log_init_probs hsmm.current_state
hsmm.duration_remaining decoder activity_classifier
"""


@pytest.mark.parametrize("input_transitions", [False, True])
def test_the_names_in_a_checkpoint(input_transitions):
    expected = set(EXPECTED.split())
    if input_transitions:
        expected -= {name for name in expected if "transition_model" in name}
        expected.add("hsmm.transition_model.transition_net")
    names = ChainClassifier(input_transitions=input_transitions).state_dict()
    networks = r"^(encoder|vq|decoder|activity_classifier|hsmm.*_net)\..*"
    assert {re.sub(networks, r"\1", name) for name in names} == expected


@pytest.mark.parametrize("use_vq", [True, False])
@pytest.mark.parametrize("use_hdp", [True, False])
@pytest.mark.parametrize("use_hsmm", [True, False])
def test_each_stage_can_be_left_out(use_vq, use_hdp, use_hsmm):
    torch.manual_seed(0)
    stages = {"vq": use_vq, "hdp": use_hdp, "hsmm": use_hsmm}
    model = ChainClassifier(**{f"use_{name}": on for name, on in stages.items()})
    output = model(torch.randn(2, 3, 2, 40))
    assert output["logits"].shape == (2, 10, 7)
    assert output["reconstruction"].shape == (2, 3, 2, 40)
    told = {"vq": output["indices"], "hdp": output["assignments"], "hsmm": output["posterior"]}
    assert {name: value is not None for name, value in told.items()} == stages
    for name, on in stages.items():
        assert any(key.startswith(f"{name}.") for key in model.state_dict()) == on
    output["logits"].sum().backward()
    assert all(p.grad is not None for p in model.encoder.parameters())


def test_a_short_training_learns_and_its_checkpoint_comes_back(few, small_chain):
    losses = [row["task_loss"] for row in small_chain.history]
    assert losses[-1] < 0.95 * losses[0]
    checkpoint = small_chain.checkpoint
    assert checkpoint["vqdoctor_task"] == "conv2d-vq-hdp-hsmm/motion"
    task = BUILTIN_TASKS[checkpoint["vqdoctor_task"]](checkpoint["config"], few)
    assert isinstance(task, Task)
    model = task.model()
    model.load_state_dict(checkpoint["model"])
    batch = next(iter(task.batches("val")))
    with torch.no_grad():
        found, expected = (task.losses(m.eval(), batch) for m in (model, small_chain.model))
    assert torch.equal(found.logits, expected.logits)
    assert found.labels.shape == (8 * 80,)

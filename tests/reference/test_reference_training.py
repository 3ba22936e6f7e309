"""Training: the same for the same seed, no trace on the random state, and really a cause of its fault."""

import io
from dataclasses import replace

import pytest
import torch

from vqdoctor.reference import BUILTIN_TASKS
from vqdoctor.reference.make_digits import digits
from vqdoctor.reference.recipes import HEALTHY, RECIPES, SAMPLES
from vqdoctor.reference.train import encode, train

SHORT = replace(HEALTHY, epochs=2, num_codes=64, warm_up_epochs=2)


@pytest.fixture(scope="module")
def data():
    return digits()


@pytest.fixture(scope="module")
def trained(data):
    return train(SHORT, data, seed=3)


def saved(checkpoint):
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    return buffer.getvalue()


def test_the_same_seed_gives_the_same_bytes(data, trained):
    torch.manual_seed(99)
    again = train(SHORT, data, seed=3)
    assert saved(again.checkpoint) == saved(trained.checkpoint)
    assert again.history == trained.history


def test_another_seed_gives_another_model(data, trained):
    other = train(replace(SHORT, epochs=1), data, seed=4)
    assert not torch.equal(other.model.head.weight, trained.model.head.weight)


def test_the_random_state_is_restored(data):
    before = torch.random.get_rng_state()
    train(replace(SHORT, epochs=1), data, seed=0)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_checkpoint_rebuilds_the_model(data, trained):
    checkpoint = torch.load(io.BytesIO(saved(trained.checkpoint)), weights_only=True)
    task = BUILTIN_TASKS[checkpoint["vqdoctor_task"]](checkpoint["config"], data)
    model = task.model()
    model.load_state_dict(checkpoint["model"])
    task.optimizer(model).load_state_dict(checkpoint["optimizer"])
    x, _ = next(iter(task.batches("val")))
    assert torch.equal(model.eval()(x)["logits"], trained.model(x)["logits"])
    assert (checkpoint["epoch"], checkpoint["global_step"]) == (2, 80)


def test_the_codebook_starts_in_the_data(data):
    """K-means codes lie nearer to z_e than N(0, 1) codes do, and counts add up to a batch's vectors."""
    still = replace(SHORT, epochs=1, learning_rate=0.0, decay=1.0, revive_under=0.0)
    placed, random = (train(replace(still, data_init=start), data, seed=0).model for start in (True, False))
    x = torch.from_numpy(data["x"])
    errors = [torch.cdist(encode(m, x), m.vq.embedding).min(dim=1).values.mean() for m in (placed, random)]
    assert errors[0] < errors[1] / 10
    assert placed.vq.ema_cluster_size.sum().item() == pytest.approx(SHORT.batch_size * 16)


def test_progress_is_told_after_every_epoch(data):
    rows = []
    train(replace(SHORT, epochs=1), data, seed=0, progress=rows.append)
    assert [row["epoch"] for row in rows] == [0.0]
    assert rows[0]["task_loss"] > 0


def test_dead_codes_are_revived_between_epochs_only_where_the_recipe_says_so(data):
    """Codes from N(0, 1) lie far from the first z_e: most are dead after one epoch."""
    far = replace(SHORT, data_init=False)
    revived = [row["revived"] for row in train(far, data, seed=0).history]
    assert revived[0] > SHORT.num_codes / 2
    assert revived[-1] == 0.0
    assert not any(row["revived"] for row in train(replace(far, revive_under=0.0), data, seed=0).history)


def test_the_vq_weight_warms_up(data):
    """In its only epoch, weight 1 warming up over two epochs is weight 0.5 from the start."""
    warm = replace(SHORT, epochs=1, vq_weight=1.0, warm_up_epochs=2)
    halved = replace(SHORT, epochs=1, vq_weight=0.5, warm_up_epochs=0)
    one, other = (train(recipe, data, seed=0).model.state_dict() for recipe in (warm, halved))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_sick_configs_rebuild_sick_models(data):
    sick = BUILTIN_TASKS["conv2d-vq/digits"](RECIPES["no-ste"].config(seed=0), data).model()
    assert sick.vq.straight_through is False
    assert BUILTIN_TASKS["conv2d-vq/digits"](RECIPES["no-vq"].config(seed=0), data).model().vq is None


def test_no_config_names_its_fault():
    for name in SAMPLES:
        assert not any(name in str(value) for value in RECIPES[name].config(seed=0).values())


@pytest.mark.accept
def test_a_cut_encoder_collapses_where_a_healthy_one_learns(data):
    """One switch apart, eight epochs: a classifier against chance."""
    images = torch.from_numpy(data["x"][data["split"] == 2])
    labels = torch.from_numpy(data["y"][data["split"] == 2])
    found = {}
    for straight_through in (True, False):
        recipe = replace(HEALTHY, epochs=8, straight_through=straight_through, revive_under=0.0)
        output = train(recipe, data, seed=11).model(images)
        accuracy = (output["logits"].argmax(1) == labels).float().mean().item()
        found[straight_through] = accuracy
    assert found[True] > 0.6
    assert found[False] < 0.2

import pytest

from vqdoctor.core.evidence import TrainingRecord
from vqdoctor.saved.optimizer import SavedOptimizer, saved_optimizers
from vqdoctor.saved.record import RETRAINED, as_retrained, read_record


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"vq_weight": 0.1, "decay": 0.95, "epochs": 9, "updates": 360}, (0.1, 0.95, 9, 360)),
        ({"vq_weight": 0.1, "decay": None, "epochs": 9}, (0.1, 0.9999, 9, 3400)),
        ({"vq_weight": float("inf"), "decay": 7.0, "epochs": "9", "updates": True}, (1.0, 0.9999, 12, 3400)),
        ([1], (1.0, 0.9999, 12, 3400)),
    ],
)
def test_the_last_retraining_counts_and_not_the_config_of_the_training_before(told, expected):
    before = TrainingRecord(
        source="checkpoint", sample_size=4, vq_weight=1.0, decay=0.9999, epochs=12, updates=3400,
        found_at=("vq_weight=config.vq_weight", "decay=config.decay", "epochs=epoch", "updates=global_step"),
    )  # fmt: skip
    found = as_retrained(before, [{"repairs": []}, {RETRAINED: told}])
    assert (found.vq_weight, found.decay, found.epochs, found.updates) == expected
    assert len(found.found_at) == found.sample_size == 4
    assert as_retrained(before, [{RETRAINED: told}, {"repairs": []}]) == before == as_retrained(before, [])


def optimizer(steps: int) -> SavedOptimizer:
    state = {"param_groups": [{"params": [0], "lr": 0.1}], "state": {0: {"step": steps, "exp_avg": 0.0}}}
    (found,) = saved_optimizers({"optimizer": state})
    return found


@pytest.mark.parametrize(
    ("tree", "epochs"),
    [
        ({"epoch": 49, "global_step": 2000}, 50),  # the index of the last epoch, as Lightning saves it
        ({"epoch": 50, "global_step": 2000}, 50),
        ({"epoch": 0, "global_step": 40}, 1),
        ({"epoch": 3, "global_step": 137}, 3),  # saved in the middle of an epoch
        ({"epoch": 1, "global_step": 40}, 1),  # either: it stays as recorded
        ({"epochs": 49, "global_step": 2000}, 49),  # a number by its name
        ({"epoch": 49}, 49),
        ({"epoch": 0, "global_step": 0}, 0),
    ],
)
def test_an_epoch_that_is_an_index_is_told_by_the_updates(tree, epochs):
    found = read_record(tree, ())
    assert found.epochs == epochs
    counted = any("counted from 0" in where for where in found.found_at)
    assert counted == (epochs != next(iter(tree.values())))


def test_updates_that_are_summed_over_two_optimizers_are_those_of_one():
    """As Lightning's global_step of a GAN, whose generator and discriminator take a step each."""
    found = read_record({"epoch": 9, "global_step": 800}, (optimizer(400), optimizer(400)))
    assert (found.updates, found.epochs) == (400, 10)
    assert "updates=global_step, summed over 2 optimizers" in found.found_at
    assert read_record({"global_step": 800}, (optimizer(400),)).updates == 800

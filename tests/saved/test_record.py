import pytest

from vqdoctor.core.evidence import TrainingRecord
from vqdoctor.saved.record import RETRAINED, as_retrained


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

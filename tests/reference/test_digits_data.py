"""digits.npz: the real data, unchanged, fairly split, and one command away."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from vqdoctor.models.task import Task
from vqdoctor.reference import BUILTIN_TASKS
from vqdoctor.reference.make_digits import digits, stratified
from vqdoctor.reference.task import SPLITS, ReferenceTask

FOLDER = Path(__file__).parents[2] / "sample_checkpoints"


@pytest.fixture(scope="module")
def shipped():
    with np.load(FOLDER / "digits.npz", allow_pickle=False) as file:
        return dict(file)


def test_the_images_are_sklearns(shipped):
    raw = load_digits()
    assert shipped["x"].dtype == np.float32
    np.testing.assert_array_equal(shipped["x"][:, 0] * 16, raw.images)
    np.testing.assert_array_equal(shipped["y"], raw.target)


def test_the_shipped_file_is_what_the_script_makes(shipped):
    made = digits()
    assert made.keys() == shipped.keys()
    for name, array in made.items():
        np.testing.assert_array_equal(array, shipped[name])
        assert array.dtype == shipped[name].dtype


def test_the_split_is_stratified(shipped):
    sizes = np.bincount(shipped["split"])
    assert sizes.tolist() == [1000, 400, 397]
    shares = np.bincount(shipped["y"]) / len(shipped["y"])
    for split, size in enumerate(sizes):
        found = np.bincount(shipped["y"][shipped["split"] == split])
        assert np.abs(found - shares * size).max() <= 1.5


def test_another_seed_splits_otherwise():
    y = np.repeat(np.arange(10), 30)
    one, other = (stratified(y, (100, 100, 100), seed) for seed in (0, 1))
    assert (one != other).any()
    assert [np.bincount(y[one == part]).tolist() for part in range(3)] == [[10] * 10] * 3


def test_the_builtin_task_serves_the_splits_apart(shipped):
    task = BUILTIN_TASKS["conv2d-vq/digits"]({"vq_weight": 0.5, "batch_size": 64}, shipped)
    assert isinstance(task, Task)
    assert task.vq_weight == 0.5
    sizes = {split: [len(y) for _, y in task.batches(split)] for split in SPLITS}
    assert {split: sum(size) for split, size in sizes.items()} == {"train": 1000, "stop": 400, "val": 397}
    assert sizes["val"] == [64] * 6 + [13]
    x, _ = next(iter(task.batches("val")))
    np.testing.assert_array_equal(x.numpy(), shipped["x"][shipped["split"] == 2][:64])


def test_splits_may_be_named_or_missing(shipped):
    x, y, split = (shipped[name] for name in ("x", "y", "split"))
    named = ReferenceTask(x, y, np.array(SPLITS)[split])
    for name in SPLITS:
        np.testing.assert_array_equal(named.data[name][1].numpy(), y[split == SPLITS.index(name)])
    assert len(ReferenceTask(x, y).data["val"][0]) == 1797


def test_a_split_without_rows_has_no_batches(shipped):
    kept = shipped["split"] != SPLITS.index("stop")
    task = ReferenceTask(*(shipped[name][kept] for name in ("x", "y", "split")))
    assert list(task.batches("stop")) == []
    assert sum(len(y) for _, y in task.batches("val")) == 397
    none = ReferenceTask(
        *(shipped[name][shipped["split"] == SPLITS.index("val")] for name in ("x", "y", "split"))
    )
    assert list(none.shuffled(0)) == []


def test_a_missing_weight_is_unknown_not_assumed(shipped):
    assert ReferenceTask(shipped["x"], shipped["y"]).vq_weight is None


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((3, 8, 8)), np.zeros(3), r"\[batch, channels, H, T\], got shape \(3, 8, 8\)"),
        (np.zeros((3, 1, 8, 8)), np.zeros(2), r"3 images, but y and split have shapes \[\(2,\)\]"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(x, y, message):
    with pytest.raises(ValueError, match=message):
        ReferenceTask(x, y)


def test_a_setting_that_is_no_number_is_refused(shipped):
    with pytest.raises(ValueError, match="vq_weight must be a number, got 'much'"):
        ReferenceTask(shipped["x"], shipped["y"], config={"vq_weight": "much"})

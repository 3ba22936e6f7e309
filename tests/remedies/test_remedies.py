"""What every remedy must keep to, and that the lines of code that it shows do what it says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import vqdoctor.remedies
from vqdoctor.checks import all_checks
from vqdoctor.remedies import Remedy, all_remedies

REMEDIES = {remedy.name: remedy for remedy in all_remedies()}
each_remedy = pytest.mark.parametrize("remedy", REMEDIES.values(), ids=REMEDIES)


def run(name: str, **names: object) -> dict[str, object]:
    """Run the lines that a remedy shows, on tensors of these names; return all names."""
    scope: dict[str, object] = {"torch": torch, "F": F, **names}
    exec(REMEDIES[name].code, scope)
    return scope


@each_remedy
def test_the_file_is_named_after_the_remedy(remedy: Remedy) -> None:
    path = Path(vqdoctor.remedies.__file__).parent / f"{remedy.name.replace('-', '_')}.py"
    assert path.is_file()


@each_remedy
def test_it_acts(remedy: Remedy) -> None:
    """What only advises is the advice of a check."""
    assert remedy.apply is not None or remedy.plan is not None


@each_remedy
def test_a_check_names_it_or_it_is_another_way_to_retrain(remedy: Remedy) -> None:
    """One that no check names is to be asked for by name, or tried."""
    assert remedy.plan is not None or any(remedy.name in check.remedies for check in all_checks())


@each_remedy
def test_it_stands_no_later_than_the_latest_finding_that_it_mends(remedy: Remedy) -> None:
    stages = [check.stage for check in all_checks() if remedy.name in check.remedies]
    assert not stages or remedy.stage <= max(stages) or remedy.name == "warm-up"


@each_remedy
def test_words_and_code_are_fit_for_a_terminal(remedy: Remedy) -> None:
    assert remedy.how.endswith(".") and "\n" not in remedy.how and "  " not in remedy.how
    assert len(remedy.doc.split()) > 30
    assert all(len(line) <= 76 for line in remedy.code.splitlines())
    assert 1 <= len(remedy.code.splitlines()) <= 4
    compile(remedy.code, remedy.name, "exec")


def test_the_plan_runs_in_the_order_of_the_recipe() -> None:
    recipe = ("straight-through", "lower-vq-weight", "data-init", "warm-up", "revive-dead-codes")
    assert [name for name in REMEDIES if name in recipe] == list(recipe)


def test_straight_through_keeps_the_value_and_passes_the_gradient() -> None:
    z_e = torch.randn(5, 3, requires_grad=True)
    codes = torch.randn(5, 3)
    z_q = run("straight-through", z_e=z_e, z_q=codes)["z_q"]
    assert isinstance(z_q, torch.Tensor)
    torch.testing.assert_close(z_q, codes)
    v = torch.randn(5, 3)
    (arrived,) = torch.autograd.grad(z_q, z_e, v)
    assert torch.equal(arrived, v)


def test_reset_ema_makes_the_next_update_a_no_op() -> None:
    codebook, sums = torch.randn(6, 3), torch.randn(6, 3)
    counts = torch.tensor([0.0, 1e-6, 0.5, 1.0, 7.0, 40.0])
    run("reset-ema", codebook=codebook, counts=counts, sums=sums)
    torch.testing.assert_close(sums / counts[:, None], codebook)


def test_data_init_writes_sums_that_belong_to_codes_and_counts() -> None:
    codebook, sums, counts = torch.zeros(4, 3), torch.zeros(4, 3), torch.ones(4)
    codes, n = torch.randn(4, 3), torch.tensor([3.0, 9.0, 1.0, 2.0])
    kmeans = {"z_e": None, "num_codes": 4, "kmeans": lambda z_e, k: (codes, n)}
    run("data-init", codebook=codebook, counts=counts, sums=sums, **kmeans)
    torch.testing.assert_close(sums / counts[:, None], codes)
    assert torch.equal(codebook, codes)


def test_revive_moves_dead_codes_only_and_survives_the_next_update() -> None:
    torch.manual_seed(0)
    counts = torch.tensor([50.0, 30.0, 0.0, 1e-9, 20.0, 10.0])
    dead = [2, 3]
    codebook = torch.randn(6, 3)
    before = codebook.clone()
    sums = codebook * counts[:, None]
    z_e = torch.randn(40, 3) + 5
    run("revive-dead-codes", counts=counts, z_e=z_e, codebook=codebook, sums=sums)
    assert (codebook != before).any(1).nonzero().flatten().tolist() == dead
    assert all((z_e == codebook[i]).all(1).any() for i in dead)
    torch.testing.assert_close(sums / counts[:, None], codebook)
    assert (counts / counts.sum() > 0.1 / 6).all()


def test_revive_leaves_an_evenly_used_codebook_alone() -> None:
    """The absolute threshold of 0.01 would replace all of these 512 codes."""
    counts, codebook = torch.full((512,), 3.0), torch.randn(512, 3)
    before = codebook.clone()
    run("revive-dead-codes", counts=counts, z_e=torch.randn(9, 3), codebook=codebook, sums=codebook * 3)
    assert torch.equal(codebook, before)


def test_spread_duplicates_leaves_no_copies_and_one_of_each() -> None:
    torch.manual_seed(0)
    codebook = torch.randn(5, 3)[torch.tensor([0, 1, 1, 2, 1, 3, 0])]
    first = codebook[[0, 1, 3, 5]].clone()
    z_e, counts, sums = torch.randn(50, 3), torch.ones(7), codebook.clone()
    run("spread-duplicates", codebook=codebook, z_e=z_e, counts=counts, sums=sums)
    assert len(torch.unique(codebook, dim=0)) == 7
    assert torch.equal(codebook[[0, 1, 3, 5]], first)
    torch.testing.assert_close(sums / counts[:, None], codebook)


def test_lower_vq_weight_and_warm_up_are_the_recipe() -> None:
    assert run("lower-vq-weight", task=2.0, vq=5.0)["loss"] == 2.5
    weights = [run("warm-up", task=0.0, vq=1.0, epoch=epoch)["loss"] for epoch in (0, 5, 10, 50)]
    assert weights == pytest.approx([0.0, 0.05, 0.1, 0.1])

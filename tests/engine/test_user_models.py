"""A user's own model and task, examined: by hand the same figures, and one clear line where it fails."""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from small_vqvae import VQVAE, WEIGHT, DigitsTask, Found, digits, save, trained
from torch import nn
from torch.nn import functional
from vector_quantize_pytorch import ResidualVQ, VectorQuantize

import vqdoctor
from vqdoctor.core.errors import MissingPackageError, UserError
from vqdoctor.core.evidence import GradientPath, LossBalance, TaskMetrics, Usage
from vqdoctor.core.report import Report
from vqdoctor.engine import Settings, UserModel, examine


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("small") / "ckpt.pt", "model.")


@pytest.fixture
def few() -> Settings:
    """Four checks' worth of evidence is enough where only the way there is tested."""
    return Settings(select=("VQ101",), batches=1)


def whole(report: Report) -> Report:
    assert not [o for o in report.outcomes if o.status == "crashed"]
    return report


def test_a_users_task_gives_the_figures_that_one_gets_by_hand(ckpt: Path) -> None:
    report = whole(examine(ckpt, user_model=UserModel(task=DigitsTask())))
    assert report.findings == ()
    assert report.verdict == "healthy"
    model, x = trained()[0], torch.cat(digits())
    twin = VQVAE()
    twin.load_state_dict(model.state_dict())
    twin.eval()
    with torch.no_grad():
        counts = torch.bincount(twin(x)["indices"].flatten(), minlength=32)
        loss = functional.mse_loss(twin(digits()[1])["recon"], digits()[1])
    usage, metrics, balance = (
        report.find(k, n) for k, n in ((Usage, "vq"), (TaskMetrics, None), (LossBalance, "vq"))
    )
    assert isinstance(usage, Usage) and isinstance(metrics, TaskMetrics) and isinstance(balance, LossBalance)
    assert usage.vectors == int(counts.sum())  # a task without "stop" has no data counted twice
    assert usage.used == int((counts > 0).sum())
    assert metrics.loss == pytest.approx(float(loss), rel=0.05)  # a mean of batches that differ in size
    assert balance.vq_weight == WEIGHT


def test_a_detach_after_a_healthy_layer_is_the_first_finding_of_its_twin_only(tmp_path: Path) -> None:
    path = save(tmp_path / "cut.pt", detach=True)
    report = whole(examine(path, user_model=UserModel(task=DigitsTask(detach=True))))
    assert report.findings[0].code == "VQ102"
    report = examine(path, user_model=UserModel(task=DigitsTask(detach=False)))
    assert "VQ102" not in {f.code for f in report.findings}


def test_a_factory_and_a_file_with_x(ckpt: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=digits()[0].numpy())
    user_model = UserModel(model=VQVAE, model_args={"codes": 32}, trained_vq_weight=WEIGHT)
    report = whole(examine(ckpt, data=tmp_path / "x.npz", user_model=user_model))
    assert report.findings == ()
    assert any("mean squared error of recon against x" in note for note in report.notes)
    assert any(note.startswith("VQ loss: vq_loss") for note in report.notes)
    usage, balance = report.find(Usage, "vq"), report.find(LossBalance, "vq")
    assert usage is not None and usage.vectors == len(digits()[0]) * 16
    assert balance is not None and balance.vq_weight == WEIGHT


@pytest.mark.parametrize(
    ("own", "told", "expected"), [(0.5, None, 0.5), (0.5, 2.0, 0.5), (None, 2.0, 2.0), (None, None, None)]
)
def test_the_weight_is_the_tasks_else_the_told_one_else_unknown(
    own: float | None, told: float | None, expected: float | None, ckpt: Path, few: Settings
) -> None:
    task = DigitsTask()
    task.vq_weight = own
    report = examine(ckpt, user_model=UserModel(task=task, trained_vq_weight=told), settings=few)
    balance = report.find(LossBalance, "vq")
    assert balance is not None
    assert balance.vq_weight == expected
    assert (balance.ratio is None) == (expected is None)
    notes = " ".join(report.notes)
    assert ("weight in training is unknown" in notes) == (expected is None)
    assert ("is not used: the task says 0.5" in notes) == (own is not None and told is not None)


def test_the_files_weight_comes_last(tmp_path: Path, few: Settings) -> None:
    model, _ = trained()
    torch.save({"model": model.state_dict(), "config": {"vq_weight": 0.125}}, tmp_path / "c.pt")
    task = DigitsTask()
    task.vq_weight = None
    for told, expected in ((None, 0.125), (3.0, 3.0)):
        report = examine(
            tmp_path / "c.pt", user_model=UserModel(task=task, trained_vq_weight=told), settings=few
        )
        balance = report.find(LossBalance, "vq")
        assert balance is not None and balance.vq_weight == expected


class Lightning(nn.Module):
    """A wrapper whose own prefix a layout's name does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.model = VQVAE()

    def forward(self, x: torch.Tensor) -> Any:
        return self.model(x)


@pytest.mark.parametrize("prefix", ["", "model.", "module.", "_orig_mod.", "tokenizer."])
@pytest.mark.parametrize("build", [VQVAE, Lightning])
def test_prefixes_of_file_and_model_need_not_agree(
    prefix: str, build: Any, tmp_path: Path, few: Settings
) -> None:
    class Task(DigitsTask):
        def model(self) -> nn.Module:
            return build()  # type: ignore[no-any-return]

    report = whole(examine(save(tmp_path / "c.pt", prefix), user_model=UserModel(task=Task()), settings=few))
    assert report.notes == (
        "only the first 1 batches of train were run, only the first 1 batches of val were run (--batches N)",
    )
    (path,) = (e for e in report.evidence if isinstance(e, GradientPath))
    assert path.estimator in ("rotation", "straight-through")


class WithCritic(VQVAE):
    """A model with a part that neither z_e nor the task loss depends on, and a table that is as built."""

    def __init__(self) -> None:
        super().__init__()
        self.critic = nn.Linear(4, 1)
        self.register_buffer("table", torch.linspace(0, 1, 8).repeat(8, 1))

    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        return super().forward(x + 0 * self.table)


class WithCriticTask(DigitsTask):
    def model(self) -> nn.Module:
        return WithCritic()


def test_missing_and_unexpected_keys_are_listed(tmp_path: Path, few: Settings) -> None:
    torch.save({**trained()[0].state_dict(), "stranger.weight": torch.ones(2)}, tmp_path / "c.pt")
    notes = examine(tmp_path / "c.pt", user_model=UserModel(task=WithCriticTask()), settings=few).notes
    assert "in the model but not in the file, left as built: table, critic.weight, critic.bias" in notes
    assert "in the file but not in the model: stranger.weight" in notes


@pytest.mark.parametrize(
    ("gone", "needing"), [("encoder.0.weight", "z_e and the task loss"), ("decoder.2.bias", "the task loss")]
)
def test_a_model_that_is_loaded_in_part_is_not_examined_as_the_trained_one(
    gone: str, needing: str, tmp_path: Path, few: Settings
) -> None:
    state = {**trained()[0].state_dict(), "stranger.weight": torch.ones(2)}
    del state[gone]
    torch.save(state, tmp_path / "c.pt")
    with pytest.raises(UserError) as refused:
        examine(tmp_path / "c.pt", user_model=UserModel(task=DigitsTask()), settings=few)
    assert refused.value.what.startswith(needing) and refused.value.what.endswith(f"lacks {gone}")
    assert "stranger.weight" in refused.value.hint


class Stack(nn.Module):
    """An encoder and a residual stack of vector-quantize-pytorch under any name."""

    def __init__(self, levels: int, name: str) -> None:
        super().__init__()
        self.encoder = nn.Linear(64, 8)
        self.add_module(name, ResidualVQ(dim=8, codebook_size=16, num_quantizers=levels))
        self.decoder = nn.Linear(8, 64)
        self.name = name

    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        z_q, indices, loss = getattr(self, self.name)(self.encoder(x.flatten(1))[:, None])
        return {"recon": self.decoder(z_q[:, 0]).view_as(x), "indices": indices, "vq_loss": loss}


class StackTask(DigitsTask):
    def model(self) -> nn.Module:
        return Stack(**self.settings)


def test_levels_that_the_file_lacks_are_left_out(tmp_path: Path, few: Settings) -> None:
    torch.manual_seed(0)
    torch.save(Stack(2, "rvq").state_dict(), tmp_path / "c.pt")
    tasks = [StackTask(levels=levels, name="rvq") for levels in (2, 4)]
    whole_file, more = (
        whole(examine(tmp_path / "c.pt", user_model=UserModel(task=task), settings=few)) for task in tasks
    )
    assert [layer.name for layer in more.layers] == [layer.name for layer in whole_file.layers]
    assert (
        "levels of the model that the file lacks, left out with codes of zero: rvq.layers.2, rvq.layers.3"
        in (more.notes)
    )
    measured = [report.find(TaskMetrics, None) for report in (whole_file, more)]
    assert measured[0] == measured[1]


def test_a_quantizer_of_another_name_leaves_the_other_names_matched(tmp_path: Path, few: Settings) -> None:
    torch.manual_seed(0)
    torch.save(Stack(2, "rvq").state_dict(), tmp_path / "c.pt")
    task = StackTask(levels=2, name="quantizer")
    report = whole(examine(tmp_path / "c.pt", user_model=UserModel(task=task), settings=few))
    assert not [note for note in report.notes if "left as built" in note or "not in the model" in note]


def test_a_layer_that_the_model_lacks_is_not_examined_and_the_other_is(tmp_path: Path, few: Settings) -> None:
    state = trained()[0].state_dict()
    more = {name.replace("vq.", "vq_two."): t.clone() for name, t in state.items() if name.startswith("vq.")}
    torch.save({**state, **more}, tmp_path / "c.pt")
    report = whole(examine(tmp_path / "c.pt", user_model=UserModel(task=DigitsTask()), settings=few))
    assert {e.layer for e in report.evidence if isinstance(e, GradientPath)} == {"vq"}
    (gap,) = (u for u in report.unavailable if u.kind == "gradient-path")
    assert (gap.layer, gap.reason) == ("vq_two", "the model does not have this layer")


class Opaque:
    """A batch in which nothing but the task can look."""

    def __init__(self, x: torch.Tensor) -> None:
        self.x = x


def test_an_opaque_batch_and_a_class_for_a_task(ckpt: Path, few: Settings) -> None:
    class Task(DigitsTask):
        def batches(self, split: str) -> Any:
            return map(Opaque, super().batches(split))

        def losses(self, model: nn.Module, batch: Any) -> Any:
            return super().losses(model, batch.x)

    report = whole(examine(ckpt, user_model=UserModel(task=Task), settings=few))
    assert report.find(GradientPath, "vq") is not None


@pytest.mark.parametrize("how", ["same", "second-empty"])
def test_data_that_can_be_read_once_is_said(how: str, ckpt: Path) -> None:
    stream = iter(digits()[0].split(600))
    calls: list[str] = []

    def batches(split: str) -> Any:
        calls.append(split)
        if how == "same":
            return stream
        return iter(digits()[0].split(600) if calls.count(split) == 1 else ())

    task = DigitsTask()
    task.batches = batches  # type: ignore[method-assign]
    with pytest.raises(UserError, match=r"same iterator twice|empty the second time"):
        examine(ckpt, user_model=UserModel(task=task))


def changed(**changes: Any) -> Any:
    """Return a task with some members replaced."""
    task = DigitsTask()
    members = {name: getattr(task, name) for name in ("vq_weight", "model", "batches", "losses")}
    return SimpleNamespace(**{**members, **changes})


def fail(*_: Any) -> Any:
    raise KeyError("what is missing")


def lazily_fail(split: str) -> Iterator[Any]:
    yield digits()[0][:8]
    raise OSError("the disk is gone")


def without_graph(model: nn.Module, x: torch.Tensor) -> Any:
    with torch.no_grad():
        return Found(functional.mse_loss(model(x)["recon"], x))


OTHER = VQVAE()


@pytest.mark.parametrize(
    ("task", "says"),
    [
        (changed(model=fail), r"task.model\(\): KeyError: 'what is missing' \(.*test_user_models.py:\d+\)"),
        (changed(model=lambda: 3), "the model is a int"),
        (changed(model=nn.Identity), "no tensor name in common|has no"),
        (changed(model=lambda: VQVAE(codes=16)), r"\[1, 32\] in the checkpoint and \[1, 16\] in the model"),
        (changed(batches=fail), r"task.batches\('train'\): KeyError"),
        (changed(batches=lazily_fail), "'train'.*, batch 1: OSError: the disk is gone"),
        (changed(batches=lambda split: ()), r"task.batches\('train'\) is empty"),
        (changed(batches=lambda split: 5), "TypeError: 'int' object is not iterable"),
        (
            changed(batches=lambda split: [torch.ones(2, 3, 8, 8)]),
            r"a batch of Tensor \(\[2, 3, 8, 8\]\): RuntimeError",
        ),
        (changed(batches=lambda split: [{"x": digits()[0][:2]}]), r"a batch of dict \(x \[2, 1, 8, 8\]\): "),
        (changed(losses=fail), "KeyError"),
        (changed(losses=lambda model, x: {"loss": model(x)}), "a dict without the field `task`"),
        (changed(losses=lambda model, x: Found(model(x)["recon"].mean().item())), ".task is a float"),
        (changed(losses=lambda model, x: Found(model(x)["recon"])), r".task has the shape \[64, 1, 8, 8\]"),
        (changed(losses=lambda model, x: Found(model(x)["recon"].mean(), 0.0)), ".vq is a float"),
        (changed(losses=without_graph), "has no graph"),
        (
            changed(losses=lambda model, x: Found(OTHER(x)["recon"].mean())),
            "does not run the model that it is given",
        ),
        (changed(vq_weight="heavy"), "vq_weight is 'heavy'"),
        (changed(vq_weight=float("nan")), "vq_weight is nan"),
        (changed(losses=None), r"without losses\(\)"),
        (lambda: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_what_is_wrong_with_a_task_is_one_line(task: Any, says: str, ckpt: Path, few: Settings) -> None:
    with pytest.raises(UserError, match=says) as caught:
        examine(ckpt, user_model=UserModel(task=task), settings=few)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [KeyError, ValueError, NotImplementedError, RuntimeError, AssertionError])
@pytest.mark.parametrize("late", [False, True])
def test_a_task_may_refuse_stop_in_any_way(
    error: type[Exception], late: bool, ckpt: Path, few: Settings
) -> None:
    def refuse() -> Iterator[Any]:
        raise error
        yield

    def batches(split: str) -> Any:
        if split != "stop":
            return digits()[split == "val"].split(64)
        if late:
            return refuse()
        raise error

    report = whole(examine(ckpt, user_model=UserModel(task=changed(batches=batches)), settings=few))
    assert report.find(GradientPath, "vq") is not None


def test_a_task_that_serves_val_for_stop_has_it_counted_once(ckpt: Path) -> None:
    task = changed(batches=lambda split: digits()[split != "train"].split(64))
    usage = examine(ckpt, user_model=UserModel(task=task)).find(Usage, "vq")
    assert usage is not None and usage.vectors == 16 * sum(map(len, digits()))


def test_more_batches_than_are_run_are_said(ckpt: Path) -> None:
    task, settings = DigitsTask(), Settings(batches=2)
    report = whole(examine(ckpt, user_model=UserModel(task=task), settings=settings))
    usage, path = report.find(Usage, "vq"), report.find(GradientPath, "vq")
    assert usage is not None and usage.vectors == 2 * 2 * 64 * 16
    assert path is not None and path.sample_size == 2 * 64 * 16
    assert any("only the first 2 batches of train" in note for note in report.notes)


def test_a_task_named_by_path_imports_the_file_beside_it(ckpt: Path, tmp_path: Path, few: Settings) -> None:
    (tmp_path / "helper_of_task.py").write_text("from small_vqvae import DigitsTask\n")
    (tmp_path / "vq_task_one.py").write_text("from helper_of_task import DigitsTask\ntask = DigitsTask()\n")
    user_model = UserModel(task=f"{tmp_path / 'vq_task_one.py'}:task")
    assert whole(examine(ckpt, user_model=user_model, settings=few)).find(GradientPath, "vq")


def test_a_name_in_the_file_is_never_imported(tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    path = tmp_path / "c.pt"
    torch.save({"model": trained()[0].state_dict(), "vqdoctor_task": f"{tmp_path / 'evil.py'}:task"}, path)
    with pytest.raises(UserError, match="is not built in"):
        examine(path, data={"x": digits()[0].numpy()})


@pytest.mark.parametrize(
    ("user_model", "data", "says"),
    [
        (UserModel(model=VQVAE), None, "needs a batch with x .*given is no batch"),
        (UserModel(model=VQVAE), {"z_e": np.ones((4, 8), "f")}, "given is z_e"),
        (UserModel(task=DigitsTask()), {"x": np.ones((4, 8), "f")}, "a task brings its own data"),
        (UserModel(trained_vq_weight=1.0), None, "has no effect, as no model is run"),
        (UserModel(model=3), {"x": np.ones((4, 8), "f")}, "is a int"),
        (UserModel(model=VQVAE), {"x": np.ones((4, 8), "f")}, r"the model fails on x float32 \[4, 8\]"),
        (
            UserModel(model=VQVAE, model_args={"cods": 3}),
            {"x": np.ones((4, 8), "f")},
            "keyword argument 'cods'",
        ),
        (UserModel(), {"x": np.ones((4, 8), "f")}, "--model PKG.MODULE:FACTORY"),
    ],
)
def test_what_does_not_go_together(user_model: UserModel, data: Any, says: str, ckpt: Path) -> None:
    with pytest.raises(UserError, match=says):
        examine(ckpt, data=data, user_model=user_model)


@pytest.mark.parametrize(
    "options",
    [
        {"task": "a.py:b", "model": "c.py:d"},
        {"vq_loss": "vq"},
        {"task": "a.py:b", "task_loss": "ce"},
        {"model_args": {"dim": 3}},
        {"losses": fail},
    ],
)
def test_options_that_would_be_ignored_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"needs --model|leave one of them out|is for a model"):
        UserModel(**options)


class Silent(VQVAE):
    """Gives its reconstruction alone, though a script may have trained it with the loss that it keeps."""

    def forward(self, x: torch.Tensor) -> Any:
        output = super().forward(x)
        self.kept = output["vq_loss"]
        return output["recon"]


def test_a_vq_loss_that_is_not_recognised_is_unknown_and_no_fault(ckpt: Path) -> None:
    data, user_model = {"x": digits()[0].numpy()}, UserModel(model=Silent)
    report = whole(examine(ckpt, data=data, user_model=user_model, settings=Settings(probe_steps=2)))
    assert report.findings == ()
    assert any(note.startswith("VQ loss: none found") for note in report.notes)
    reasons = {u.kind: u.reason for u in report.unavailable}
    for kind in ("loss-use", "codebook-gradient", "trace"):
        assert reasons[kind] == "no VQ loss was recognised in the model's output"
    assert report.find(GradientPath, "vq") is not None


def test_without_torch_it_says_how_to_get_it(ckpt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for user_model, data in ((UserModel(task="a.py:task"), None), (UserModel(model="hf"), {"x": np.ones(3)})):
        with pytest.raises(MissingPackageError, match=r"pip install 'vqdoctor\[torch\]'"):
            examine(ckpt, data=data, user_model=user_model)


def test_the_random_states_are_as_before(ckpt: Path, few: Settings) -> None:
    def losses(model: nn.Module, x: torch.Tensor) -> Any:
        random.random()
        np.random.rand()
        return DigitsTask().losses(model, x)

    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    examine(ckpt, user_model=UserModel(task=changed(losses=losses)), settings=few)
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])


def test_a_model_without_a_vq_layer_is_run_and_found_wanting(tmp_path: Path) -> None:
    class Plain(nn.Linear):
        def __init__(self) -> None:
            super().__init__(4, 4)

    torch.save(Plain().state_dict(), tmp_path / "c.pt")
    report = examine(tmp_path / "c.pt", data={"x": np.ones((5, 4), "f")}, user_model=UserModel(model=Plain))
    assert report.layers == ()
    assert report.verdict == "inconclusive"


def test_the_ema_decay_that_the_layer_of_a_task_keeps_is_not_assumed(tmp_path: Path) -> None:
    class Task:
        def model(self) -> torch.nn.Module:
            return VectorQuantize(dim=4, codebook_size=16, decay=0.9)

        def batches(self, split: str) -> list[torch.Tensor]:
            return [torch.randn(8, 16, 4, generator=torch.Generator().manual_seed(0))]

        def losses(self, model: torch.nn.Module, x: torch.Tensor) -> vqdoctor.Losses:
            return vqdoctor.Losses(task=model(x)[0].square().mean())

    vq = Task().model()
    for seed in range(8):
        vq(torch.randn(8, 16, 4, generator=torch.Generator().manual_seed(seed)))
    torch.save(vq.state_dict(), tmp_path / "c.pt")
    bare = next(e for e in examine(tmp_path / "c.pt").evidence if isinstance(e, Usage))
    assert bare.assumed_decay == 0.8
    report = examine(tmp_path / "c.pt", user_model=UserModel(task=Task()))
    known = next(e for e in report.evidence if isinstance(e, Usage) and e.source == "checkpoint")
    assert known.assumed_decay is None and known.window == pytest.approx(19)

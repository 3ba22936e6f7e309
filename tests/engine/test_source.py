"""`fix --source`: a patch is proven by an examination, and written only where git holds the old file."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from subprocess import CompletedProcess

import libcst as cst
import pytest
import torch
from processes import python, run
from small_training import Rivals
from source.trained import copied, train
from torch import nn

from vqdoctor.core.errors import UserError
from vqdoctor.core.evidence import TaskMetrics
from vqdoctor.core.report import Report
from vqdoctor.core.settings import Settings, UserModel
from vqdoctor.core.source import SourcePatch, SourceStep
from vqdoctor.engine import exit_code, source_proof
from vqdoctor.engine import source as source_engine
from vqdoctor.engine.source import patch_source
from vqdoctor.engine.source_file import encoding_of, name_in_patch, require_committed, write_over
from vqdoctor.engine.source_layers import SourceLayer, _classes
from vqdoctor.engine.source_proof import Examined, Proof
from vqdoctor.models.untouched import same_randomness
from vqdoctor.source import Patch, Written, diff, parse

NAME = "zalando_without_estimator"
ESTIMATOR = "        quantized = inputs + (quantized - inputs).detach()\n"


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source of a layer without its estimator, and a checkpoint of it."""
    folder = tmp_path_factory.mktemp("patient")
    train(copied(NAME, folder), folder / "model.pt", 40)
    return folder


@pytest.fixture(scope="module")
def patched(patient: Path) -> tuple[str, CompletedProcess[str], Report]:
    """The source before, the run of `fix --source --write` on it in a git repository, and its report."""
    source, report = patient / f"{NAME}.py", patient / "report.json"
    before = source.read_text()
    for command in (["init", "-q"], ["add", source.name], ["commit", "-qm", "as it was"]):
        author = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        run(*["git", *author, *command], cwd=patient, check=True)
    done = _fix(patient, "--write", "--only", "straight-through", "--save", f"json={report}")
    return before, done, Report.from_dict(json.loads(report.read_text()))


def test_the_proven_line_is_all_that_changes(
    patient: Path, patched: tuple[str, CompletedProcess[str], Report]
) -> None:
    """One line comes in, behind the loss; every other byte stays."""
    before, done, report = patched
    after = (patient / f"{NAME}.py").read_text()
    assert after.replace(ESTIMATOR, "") == before
    assert after.count(ESTIMATOR) == 1
    assert report.source is not None
    assert report.source.written
    (step,) = report.source.steps
    assert (step.remedy, step.status) == ("straight-through", "proven")
    assert "VQ101" in step.reason
    assert f"+{ESTIMATOR}" in report.source.diff
    assert done.returncode == exit_code(report) == 0
    assert "1 proven change, written to" in done.stdout


def test_a_changed_file_is_not_written_over(
    patient: Path, patched: tuple[str, CompletedProcess[str], Report]
) -> None:
    """The file holds the patch, which no commit has: it is refused before anything is examined."""
    done = _fix(patient, "--write")
    assert done.returncode == 2
    assert "has changes that are not committed" in done.stderr
    assert "--diff > fix.patch" in done.stderr


def test_a_repository_runs_no_code(tmp_path: Path) -> None:
    """Hooks, monitors and filters of a stranger's repository stay as they are: git reads one hash."""
    source = tmp_path / "model.py"
    source.write_text("x = 1\n")
    (tmp_path / ".gitattributes").write_text("*.py filter=evil\n")
    _commit(tmp_path)
    mark = tmp_path / "ran"
    evil = f"touch {mark}"
    for name in ("core.fsmonitor", "filter.evil.clean", "filter.evil.smudge", "diff.external"):
        run(*["git", "config", name, evil], cwd=tmp_path, check=True)
    require_committed(source)
    source.write_text("x = 2\n")
    with pytest.raises(UserError, match="not committed"):
        require_committed(source)
    with pytest.raises(UserError, match="no commit"):
        require_committed(Path(__file__).parents[4] / "nowhere.py")
    assert not mark.exists()


def test_an_edit_during_the_proof_is_kept(tmp_path: Path) -> None:
    """The patch was proven on another text than the file holds now."""
    source = tmp_path / "model.py"
    source.write_bytes(b"x = 1  # two hours of work\n")
    with pytest.raises(UserError, match="changed while"):
        write_over(source, b"x = 1\n", b"x = 2\n")
    assert source.read_bytes() == b"x = 1  # two hours of work\n"
    write_over(source, source.read_bytes(), b"x = 2\n")
    assert source.read_bytes() == b"x = 2\n"


def test_git_holds_a_file_behind_a_link_and_with_other_line_ends(tmp_path: Path) -> None:
    """What counts is the file that is written, and what git would make of it."""
    source, link = tmp_path / "model.py", tmp_path / "link.py"
    source.write_bytes(b"x = 1\n")
    link.symlink_to(source.name)
    _commit(tmp_path)
    require_committed(link)
    source.write_bytes(b"x = 1\r\n")
    with pytest.raises(UserError, match="not committed"):
        require_committed(source)
    run(*["git", "config", "core.autocrlf", "true"], cwd=tmp_path, check=True)
    require_committed(source)
    source.chmod(0o444)
    with pytest.raises(UserError, match="read-only"):
        require_committed(source)


def test_a_patch_applies_from_the_top(tmp_path: Path) -> None:
    """Its path is the repository's, its bytes are the file's, and a form feed ends no line."""
    source = tmp_path / "src" / "pkg" / "model.py"
    source.parent.mkdir(parents=True)
    text = b"# -*- coding: latin-1 -*-\nx = 1  # \xe9 \x0c \x1c b\ny = 2\n"
    source.write_bytes(text)
    _commit(tmp_path)
    before = parse(source)
    after = cst.parse_module(text.replace(b"y = 2", b"y = 3"))
    patch = diff(before, after, name_in_patch(source)).encode(encoding_of(source))
    (tmp_path / "fix.patch").write_bytes(patch)
    run(*["git", "apply", "fix.patch"], cwd=tmp_path, check=True)
    assert source.read_bytes() == after.bytes


def test_a_partial_clone_fetches_nothing(tmp_path: Path) -> None:
    """A tree that is absent is not asked of a promisor, whose command could be anything."""
    source, mark, upload = tmp_path / "model.py", tmp_path / "ran", tmp_path / "up.sh"
    source.write_text("x = 1\n")
    _commit(tmp_path)
    upload.write_text(f"#!/bin/sh\ntouch {mark}\n")
    upload.chmod(0o755)
    settings = {
        "core.repositoryformatversion": "1",
        "extensions.partialClone": "origin",
        "remote.origin.url": str(tmp_path),
        "remote.origin.promisor": "true",
        "remote.origin.uploadpack": str(upload),
    }
    for name, value in settings.items():
        run(*["git", "config", name, value], cwd=tmp_path, check=True)
    tree = run(*["git", "rev-parse", "HEAD^{tree}"], cwd=tmp_path, check=True).stdout.strip()
    (tmp_path / ".git" / "objects" / tree[:2] / tree[2:]).unlink()
    with pytest.raises(UserError, match="no commit"):
        require_committed(source)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("code", "told"),
    [("import os\nos._exit(0)\n", "ended its process"), ("while True:\n    pass\n", "more than 2 s")],
)
def test_code_that_ends_or_waits_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, told: str
) -> None:
    """It runs in a process of its own, which has a time limit."""
    monkeypatch.setattr(source_proof, "IMPORT_LIMIT", 2.0 if "while" in code else 60.0)
    source = tmp_path / "hangs.py"
    source.write_text(code)
    user_model = UserModel(task=f"{source}:task")
    with pytest.raises(UserError, match=told):
        patch_source(tmp_path / "model.pt", source, user_model=user_model)


@pytest.mark.parametrize(
    ("before", "after", "loss", "told"),
    [
        ("codes", "codes", 1.0, ""),
        ("codes", "codes", 2.0, "task loss"),
        ("z_e", "codes", 2.0, ""),
        ("z_e", "z_e", 1.0, "still hands on its input"),
        ("codes", "z_e", 1.0, "still hands on its input"),
        ("z_e", "", 2.0, "does not hand on its codes"),
    ],
)
def test_an_estimator_must_hand_on_the_codes(before: str, after: str, loss: float, told: str) -> None:
    """A layer that hands on z_e has another task loss once it hands on its codes; any other keeps its own."""
    patch = Patch(remedies=("straight-through",), propose=lambda *_: iter(()), gives_codes=True)
    states = [_state(output, loss) for output, loss in ((before, 1.0), (after, loss))]
    refused = source_engine._refused(Proof(), *states, patch, "vq.codebook")
    assert told in refused
    assert bool(told) is bool(refused)


def _state(output: str, loss: float) -> source_engine._State:
    metrics = replace(TaskMetrics.HEALTHY, loss=loss)
    report = Report(
        version="1", checkpoint=None, layers=(), findings=(), plan=(), evidence=(metrics,), unavailable=(),
        outcomes=(), verdict="inconclusive",
    )  # fmt: skip
    layer = SourceLayer(
        name="vq", keys={"codebook": "vq.codebook"}, transposed=False, classes=(), output=output
    )  # type: ignore[arg-type]
    return source_engine._State(module=cst.parse_module(""), report=report, layers=(layer,))


def test_the_file_of_the_class_is_named() -> None:
    """Where the source is not that file, or the model never imports it."""
    here = Path(__file__).resolve()
    written = Written(path="vq", name="Quantizer", file=str(here))
    layer = SourceLayer(name="vq", keys={}, transposed=False, classes=(written,))
    report = _state("", 1.0).report
    examined = Examined(report=report, layers=(layer,))
    assert source_engine._elsewhere(examined, here) == ""
    told = source_engine._elsewhere(replace(examined, imported=False), here.with_name("copy.py"))
    assert "never imports copy.py" in told
    assert f"--source {os.path.relpath(here)}" in told


def test_a_training_from_scratch_takes_a_step_of_every_optimizer(tmp_path: Path) -> None:
    source_proof._train(tmp_path / "model.pt", UserModel(task=Rivals()), Settings(seed=0), 2)
    with same_randomness(0):
        fresh = Rivals().model().judge.weight
    assert not torch.equal(torch.load(tmp_path / "model.pt")["model"]["judge.weight"], fresh)


def test_a_decorated_method_does_not_hide_where_its_class_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`torch.no_grad()` puts a function of torch's own file in the method's place."""
    (tmp_path / "two_of_a_name.py").write_text(
        "import torch\nfrom torch import nn\n\n\n"
        "class Quantizer(nn.Module):\n    @torch.no_grad()\n    def forward(self, z): return z\n\n\n"
        "First = Quantizer\n\n\n"
        "class Quantizer(nn.Module):\n    def forward(self, z): return z\n"
    )
    spec = spec_from_file_location("two_of_a_name", tmp_path / "two_of_a_name.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    for kind, (start, end) in ((module.First, (5, 7)), (module.Quantizer, (13, 14))):
        written = next(_classes(nn.ModuleDict({"vq": kind()}), "vq.codebook"))
        assert start <= written.line <= end


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--diff"], "--diff needs --source"),
        (["--write"], "--write needs --source"),
        (["--source", "none.py", "--retrain"], "--source and --retrain"),
        (["--source", "none.py", "--diff", "--write"], "--diff and --write"),
        (["--source", "none.py", "--dry-run", "--write"], "--dry-run and --write"),
        (["--source", "none.py", "--trial"], "--source and --trial"),
        (["--source", "none.py"], "none.py: No such file"),
        (["--source", __file__], "--source needs the model"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path: Path, options: list[str], told: str) -> None:
    """Each in one line, before anything is read."""
    file = tmp_path / "model.pt"
    file.write_bytes(b"")
    done = python("-m", "vqdoctor", "fix", file, *options)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_a_source_without_the_place_is_left_as_it_is(patient: Path) -> None:
    """The file is read, the finding stays, and the exit code says so."""
    other = patient / "other.py"
    other.write_text("x = 1\n")
    user_model = UserModel(task=f"{patient / NAME}.py:task")
    settings = Settings(source=other, only=("straight-through",), select=("VQ101", "VQ50"))
    original = train(copied(NAME, _below(patient)), patient / "sick.pt", 1)
    user_model = UserModel(task=f"{_below(patient) / NAME}.py:task")
    report = patch_source(original, other, user_model=user_model, settings=settings)
    assert report.source is not None
    assert report.source.diff == ""
    assert {step.status for step in report.source.steps} == {"not-placed"}
    assert other.read_text() == "x = 1\n"
    assert exit_code(report) == 1


@pytest.mark.accept
def test_the_wrong_way_round_under_an_unknown_name(tmp_path: Path) -> None:
    """The layer is found by its lookups alone; of a class that inherits all, the base is patched."""
    source = copied(NAME, tmp_path)
    wrong = ESTIMATOR.replace("inputs + (quantized - inputs)", "quantized + (inputs - quantized)")
    text = source.read_text().replace("_embedding", "table")
    text = text.replace("        return quantized", f"{wrong}        return quantized")
    inherits = "class Mine(Quantizer):\n    pass\n\n\nclass Net("
    text = text.replace("class Net(", inherits).replace("self.vq = Quantizer()", "self.snap = Mine()")
    source.write_text(text.replace("self.vq(", "self.snap("))
    checkpoint = train(source, tmp_path / "model.pt", 1)
    user_model = UserModel(task=f"{source}:task")
    settings = Settings(source=source, only=("straight-through",))
    report = patch_source(checkpoint, source, user_model=user_model, settings=settings)
    assert [layer.layout for layer in report.layers] == ["found by its lookups"]
    assert report.source is not None
    assert [step.status for step in report.source.steps] == ["proven"]
    assert f"-{wrong}+{ESTIMATOR}" in report.source.diff


def test_a_patch_round_trips_in_json() -> None:
    """A saved report holds it whole."""
    step = SourceStep(remedy="shuffle", codes=("VQ403",), status="unproven", tried=2, diff="-a\n+b\n")
    patch = SourcePatch(path="train.py", diff="", written=False, steps=(step,))
    report = Report(
        version="1", checkpoint=None, layers=(), findings=(), plan=(), evidence=(), unavailable=(),
        outcomes=(), verdict="inconclusive", source=patch,
    )  # fmt: skip
    assert Report.from_dict(json.loads(report.to_json())).source == patch


def test_a_patch_settles_no_unknown_usage() -> None:
    """Without a judged layer the run stays inconclusive, whatever the patch."""
    patch = SourcePatch(path="train.py", diff="", written=False, steps=())
    report = Report(
        version="1", checkpoint=None, layers=(), findings=(), plan=(), evidence=(), unavailable=(),
        outcomes=(), verdict="inconclusive", source=patch,
    )  # fmt: skip
    assert exit_code(report) == 3


def _commit(folder: Path) -> None:
    author = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        run(*["git", *author, *command], cwd=folder, check=True)


def _fix(folder: Path, *options: str) -> CompletedProcess[str]:
    source = f"{NAME}.py"
    task = ("--task", f"{source}:task", "--source", source)
    return python("-m", "vqdoctor", "fix", "model.pt", *task, *options, cwd=folder)


def _below(folder: Path) -> Path:
    below = folder / "original"
    below.mkdir(exist_ok=True)
    return below

"""A file is repaired without training; torch and the libraries that wrote it are the oracles."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import vector_quantize_pytorch as vqp
from torch import nn

from vqdoctor.checkpoint import CheckpointError, open_checkpoint
from vqdoctor.core.errors import UserError
from vqdoctor.core.evidence import Usage
from vqdoctor.core.report import DRY_RUN, Report
from vqdoctor.engine import Settings, examine
from vqdoctor.engine.repair import default_output, repair_file
from vqdoctor.layouts import find_quantizers

_spec = importlib.util.spec_from_file_location(
    "vq_libraries", Path(__file__).parents[1] / "probes" / "libraries.py"
)
assert _spec is not None and _spec.loader is not None
libraries = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(libraries)

CODES, DIM = libraries.CODES, libraries.DIM
REVIVE = Settings(only=("revive-dead-codes",))


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)


def sickly(codes: int = CODES, dim: int = DIM, seed: int = 0) -> dict[str, torch.Tensor]:
    """A layer of the reference layout that uses 4 of its codes."""
    generator = torch.Generator().manual_seed(seed)
    codebook = torch.randn(codes, dim, generator=generator)
    codebook[4:] += 40
    counts = torch.full((codes,), 1e-12)
    counts[:4] = torch.tensor([40.0, 30.0, 20.0, 10.0])
    return {
        "vq.embedding": codebook,
        "vq.ema_cluster_size": counts,
        "vq.ema_embedding_sum": codebook * counts[:, None],
    }


def vectors(number: int = 2000, dim: int = DIM, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((number, dim)).astype(np.float32)


def repaired(
    value: Any, folder: Path, *, z_e: Any = None, name: str = "model.pt", **changed: Any
) -> tuple[Report, Path]:
    path, data = folder / name, None
    torch.save(value, path)
    if z_e is not None:
        data = folder / "z_e.npz"
        np.savez(data, **(z_e if isinstance(z_e, dict) else {"z_e": z_e}))
    settings = dataclasses.replace(REVIVE, **changed)
    return repair_file(path, data=data, settings=settings), default_output(path)


def records(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


class TestTheFile:
    def test_used_codes_and_everything_else_stay_byte_for_byte(self, tmp_path: Path) -> None:
        state = {"encoder.weight": torch.randn(9, 9), **sickly()}
        report, out = repaired({"model": state, "epoch": 3}, tmp_path)
        before, after = records(tmp_path / "model.pt"), records(out)
        assert [n for n in before if before[n] != after[n]] == [
            "model/data/1",
            "model/data/2",
            "model/data/3",
        ]
        loaded = torch.load(out, weights_only=True)
        assert torch.equal(loaded["model"]["vq.embedding"][:4], state["vq.embedding"][:4])
        assert (loaded["model"]["vq.embedding"][4:] != state["vq.embedding"][4:]).any(1).all()
        assert loaded["epoch"] == 3 and report.checkpoint.path == str(out)

    def test_the_note_says_what_was_done(self, tmp_path: Path) -> None:
        _, out = repaired(sickly(), tmp_path)
        (note,) = open_checkpoint(out).history
        assert note["input_sha256"] == open_checkpoint(tmp_path / "model.pt").verify()
        assert note["repairs"][0]["remedy"] == "revive-dead-codes"
        assert note["repairs"][0]["changes"]["vq.embedding"] == "12 of 16 codes"

    def test_counts_that_no_training_has_counted_prove_no_health(self, tmp_path: Path) -> None:
        report, out = repaired(sickly(), tmp_path)
        assert report.find(Usage, "vq") is None and report.verdict == "inconclusive"
        with_data = examine(out, data={"z_e": vectors()})
        assert with_data.usages("vq").keys() == {"batch"}
        trained = tmp_path / "trained.pt"
        torch.save(torch.load(out, weights_only=True), trained)  # a new file of the user's own training
        assert examine(trained).find(Usage, "vq") is not None

    def test_a_dry_run_shows_all_and_writes_nothing(self, tmp_path: Path) -> None:
        report, out = repaired(sickly(), tmp_path, z_e=vectors(), dry_run=True)
        assert not out.exists() and DRY_RUN in report.notes
        (repair,) = report.repairs
        assert repair.before["dead"] >= 12 > repair.after["dead"]
        assert repair.changes[0].what == f"{int(repair.before['dead'])} of 16 codes"
        wet, _ = repaired(sickly(), tmp_path, z_e=vectors())
        assert wet.repairs[0].changes == repair.changes

    def test_reports_with_repairs_survive_json(self, tmp_path: Path) -> None:
        report, _ = repaired(sickly(), tmp_path, z_e=vectors())
        assert Report.from_dict(json.loads(report.to_json())) == report
        assert report.repairs[0].changes and not report.find(Usage, "vq").histogram

    def test_a_healthy_file_is_not_written(self, tmp_path: Path) -> None:
        state = sickly()
        state["vq.ema_cluster_size"] = 50 + 10 * torch.rand(CODES)
        state["vq.ema_embedding_sum"] = state["vq.embedding"] * state["vq.ema_cluster_size"][:, None]
        report, out = repaired(state, tmp_path)
        assert not out.exists() and report.repairs[0].status == "no-effect"
        assert any("nothing was written" in note for note in report.notes)

    def test_what_changes_trained_weights_needs_consent(self, tmp_path: Path) -> None:
        report, out = repaired(sickly(), tmp_path, z_e=vectors(), only=("data-init",))
        assert not out.exists() and report.repairs[0].status == "skipped"
        assert "--unsafe-fixes" in report.repairs[0].reason
        report, out = repaired(sickly(), tmp_path, z_e=vectors(), only=("data-init",), unsafe=True)
        assert report.repairs[0].status == "applied" and out.exists()
        assert report.find(Usage, "vq").used == CODES

    def test_remedies_in_the_source_say_how(self, tmp_path: Path) -> None:
        report, _ = repaired(sickly(), tmp_path, only=("straight-through", "code-each-step"))
        assert {r.remedy: r.status for r in report.repairs} == {
            "straight-through": "skipped",
            "code-each-step": "skipped",
        }
        assert all(r.reason.startswith("a file alone cannot take it") for r in report.repairs)

    def test_left_out_by_name(self, tmp_path: Path) -> None:
        report, out = repaired(sickly(64), tmp_path, only=(), skip=("revive-dead-codes",))
        assert "left out, as asked" in {r.reason for r in report.repairs} and not out.exists()

    def test_without_names_the_findings_choose(self, tmp_path: Path) -> None:
        report, out = repaired(sickly(64), tmp_path, only=())
        assert {r.remedy: r.status for r in report.repairs} == {
            "data-init": "skipped",
            "revive-dead-codes": "applied",
        }
        assert out.exists()

    def test_an_unknown_remedy_is_told_the_closest(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="did you mean revive-dead-codes"):
            repaired(sickly(), tmp_path, only=("revive-dead-code",))

    def test_the_output_must_not_exist(self, tmp_path: Path) -> None:
        repaired(sickly(), tmp_path)
        with pytest.raises(CheckpointError, match="exists already"):
            repaired(sickly(), tmp_path)
        repaired(sickly(), tmp_path, overwrite=True)

    def test_seeds(self, tmp_path: Path) -> None:
        torch.save(sickly(), tmp_path / "model.pt")
        outs = []
        for number, seed in enumerate((0, 0, 1)):
            outs.append(tmp_path / f"{number}.pt")
            repair_file(tmp_path / "model.pt", outs[-1], settings=dataclasses.replace(REVIVE, seed=seed))
        assert outs[0].read_bytes() == outs[1].read_bytes() != outs[2].read_bytes()

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_types_stay(self, dtype: torch.dtype, tmp_path: Path) -> None:
        state = sickly()
        state["vq.embedding"] = state["vq.embedding"].to(dtype)
        _, out = repaired(state, tmp_path)
        loaded = torch.load(out, weights_only=True)["vq.embedding"]
        assert loaded.dtype == dtype and torch.equal(loaded[:4], state["vq.embedding"][:4])

    def test_safetensors(self, tmp_path: Path) -> None:
        path = tmp_path / "model.safetensors"
        safetensors.torch.save_file(sickly(), path)
        repair_file(path, settings=REVIVE)
        loaded = safetensors.torch.load_file(tmp_path / "model.fixed.safetensors")
        assert (loaded["vq.embedding"].norm(dim=1) < 20).all()
        report = examine(tmp_path / "model.fixed.safetensors")
        assert report.find(Usage, "vq") is None

    def test_a_broken_code_gets_a_new_place(self, tmp_path: Path) -> None:
        state = sickly()
        state["vq.embedding"][7, 0] = float("nan")
        report, out = repaired(state, tmp_path, only=(), unsafe=True)
        assert "restore-finite" in {r.remedy for r in report.repairs if r.status == "applied"}
        assert all(t.isfinite().all() for t in torch.load(out, weights_only=True).values())
        assert not any(f.code == "VQ901" for f in report.findings)

    def test_codes_computed_from_other_tensors_are_not_written(self, tmp_path: Path) -> None:
        state = {"vq.frozen_codebook": torch.randn(32, 8), "vq.code_transform.weight": torch.randn(8, 8)}
        report, out = repaired(state, tmp_path, z_e=vectors())
        assert report.repairs[0].status == "skipped" and not out.exists()


class TestOptimizer:
    def test_moments_of_the_written_rows_are_cleared(self, tmp_path: Path) -> None:
        model = nn.Sequential()
        model.encoder, model.vq, model.head = nn.Linear(3, DIM), nn.Embedding(CODES, DIM), nn.Linear(DIM, 2)
        model.vq.weight.data[4:] += 40
        optimizer = torch.optim.Adam(model.parameters())
        sum(p.square().sum() for p in model.parameters()).backward()
        optimizer.step()
        value = {"model": {n.replace("vq.", "quantize.embedding."): p for n, p in model.state_dict().items()}}
        value["optimizer"] = optimizer.state_dict()
        report, out = repaired(value, tmp_path, z_e=vectors())
        old, new = (
            torch.load(p, weights_only=True)["optimizer"]["state"] for p in (tmp_path / "model.pt", out)
        )
        dead = int(report.repairs[0].before["dead"])
        for role in ("exp_avg", "exp_avg_sq"):
            places = [i for i in old if old[i][role].shape == (CODES, DIM)]
            (place,) = places
            cleared = (new[place][role] == 0).all(1)
            assert cleared.sum() == dead and not cleared[:4].all()
            assert torch.equal(new[place][role][~cleared], old[place][role][~cleared])
            for other in set(old) - {place}:
                assert torch.equal(new[other][role], old[other][role])
        fresh = torch.optim.Adam(model.parameters())
        fresh.load_state_dict(torch.load(out, weights_only=True)["optimizer"])


def cluster(number: int = 600) -> torch.Tensor:
    """Vectors of 30 clusters around the origin, where few of the codes start."""
    generator = torch.Generator().manual_seed(5)
    centres = torch.randn(30, DIM, generator=generator)
    return centres[torch.arange(number) % 30] + 0.05 * torch.randn(number, DIM, generator=generator)


def called(module: nn.Module, z: torch.Tensor) -> None:
    module(z.view(-1, 6, DIM))


def zalando(module: nn.Module, z: torch.Tensor) -> None:
    module(z.view(-1, 2, 3, DIM).permute(0, 3, 1, 2))


def far(module: nn.Module) -> nn.Module:
    """Put most codes where no vector is."""
    with torch.no_grad():
        for name, tensor in module.state_dict(keep_vars=True).items():
            if tensor.shape in ((1, CODES, DIM), (CODES, DIM)) and "ema_w" not in name and "avg" not in name:
                tensor.view(CODES, DIM)[4:] += 40
            elif tensor.shape == (DIM, CODES) and "avg" not in name:
                tensor[:, 4:] += 40
    return module


LIBRARIES: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module, torch.Tensor], None]]] = {
    "vector-quantize-pytorch": (lambda: vqp.VectorQuantize(dim=DIM, codebook_size=CODES), called),
    "its cosine codebook": (
        lambda: vqp.VectorQuantize(dim=DIM, codebook_size=CODES, use_cosine_sim=True), called
    ),
    "rosinality": (libraries.Rosinality, called),
    "zalando": (libraries.ZalandoEMA, zalando),
}  # fmt: skip


@pytest.mark.parametrize("name", LIBRARIES)
@pytest.mark.parametrize("with_data", [False, True], ids=["blind", "z_e"])
def test_the_library_goes_on_from_the_written_codes(name: str, with_data: bool, tmp_path: Path) -> None:
    """The fixed file loads strictly, and an EMA update neither undoes nor distorts what was written."""
    make, run = LIBRARIES[name]
    module, z = far(make()), cluster()
    if name == "its cosine codebook":
        z[:, 1:] *= 0.05  # one direction, which few of its unit codes look at
        z[:, 0] = z[:, 0].abs() + 1
    module.train()
    for _ in range(400):
        run(module, z)
    sick = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    report, out = repaired(sick, tmp_path, z_e=z.numpy() if with_data else None)
    assert report.repairs[0].status == "applied", report.repairs
    fixed = torch.load(out, weights_only=True)
    fresh = make()
    fresh.load_state_dict(fixed, strict=True)
    old, new = codebook(sick), codebook(fixed)
    moved = (old != new).any(axis=1)
    assert 0 < moved.sum() < CODES
    if name == "its cosine codebook":
        np.testing.assert_allclose(np.linalg.norm(new, axis=1), 1, atol=1e-5)
    fresh.train()
    run(fresh, z)
    now = codebook(fresh.state_dict())
    way = np.linalg.norm(new - old, axis=1)[moved]
    strayed = np.linalg.norm(now - new, axis=1)
    # One update moves a code at most by its decay's complement (0.2 here) of the way to its vectors.
    assert (strayed[moved] < 0.25 * np.maximum(way, np.linalg.norm(z, axis=1).max())).all()
    fresh.load_state_dict(fixed)
    run(fresh, torch.zeros_like(z) + torch.from_numpy(new[np.flatnonzero(~moved)[0]]))
    now = codebook(fresh.state_dict())
    # Nothing but one old code was chosen: what was written stays, up to the smoothing of its count.
    np.testing.assert_allclose(now[moved], new[moved], rtol=2e-3, atol=1e-4)


def codebook(state: dict[str, torch.Tensor]) -> np.ndarray:
    from stored import Stored

    (view,) = find_quantizers({name: Stored(t) for name, t in state.items()}).views
    return view.codebook


def test_a_flag_of_initialisation_still_to_come_is_set(tmp_path: Path) -> None:
    vq = vqp.VectorQuantize(dim=DIM, codebook_size=CODES, kmeans_init=True)
    _, out = repaired(vq.state_dict(), tmp_path, z_e=vectors(), only=("data-init",), unsafe=True)
    loaded = torch.load(out, weights_only=True)
    assert loaded["_codebook.initted"].item() is True
    vq.load_state_dict(loaded, strict=True)
    vq.train()
    written = vq.codebook.clone()
    vq(torch.randn(2, 40, DIM) + 50)
    assert ((vq.codebook - written).norm(dim=1) < 1e-3).sum() >= CODES - 1  # no second initialisation


def test_encodec_of_transformers_loads_its_fixed_file(tmp_path: Path) -> None:
    from transformers import EncodecConfig, EncodecModel

    config = EncodecConfig(
        num_filters=2,
        codebook_size=CODES,
        hidden_size=DIM,
        codebook_dim=DIM,
        upsampling_ratios=[8, 5],
        target_bandwidths=[4.8],
    )
    model = EncodecModel(config)
    state = model.state_dict()
    keys = [key.rpartition(".")[0] for key in state if key.endswith("codebook.embed")]
    for key in keys:
        state[f"{key}.embed"][:] = sickly(seed=len(key))["vq.embedding"]
        state[f"{key}.cluster_size"][:] = sickly()["vq.ema_cluster_size"]
        state[f"{key}.embed_avg"][:] = state[f"{key}.embed"] * state[f"{key}.cluster_size"][:, None]
    report, out = repaired(state, tmp_path)
    assert [r.status for r in report.repairs] == ["applied"] * 2 == ["applied"] * len(keys)
    model.load_state_dict(torch.load(out, weights_only=True), strict=True)
    assert all((model.state_dict()[f"{key}.embed"].norm(dim=1) < 20).all() for key in keys)


def test_a_codebook_that_is_only_stored_as_sums_and_counts(tmp_path: Path) -> None:
    """Mimi computes its codes from these two."""
    codes, path = sickly()["vq.embedding"], "quantizer.rvq_first.vq.layers.0._codebook"
    usage = torch.full((CODES,), 1e-3)
    usage[:4] = 50
    state = {
        f"{path}._initialized": torch.ones(1),
        f"{path}.cluster_usage": usage,
        f"{path}.embedding_sum": codes * usage[:, None],
    }
    report, out = repaired(state, tmp_path)
    loaded = torch.load(out, weights_only=True)
    now = loaded[f"{path}.embedding_sum"] / loaded[f"{path}.cluster_usage"].clamp_min(1e-5)[:, None]
    assert report.repairs[0].status == "applied"
    torch.testing.assert_close(now[:4], codes[:4])
    assert (now.norm(dim=1) < 20).all()


class TestLevels:
    def test_a_level_is_repaired_for_what_the_repaired_one_before_it_leaves(self, tmp_path: Path) -> None:
        first, second = sickly(seed=0), sickly(seed=1)
        second["vq.embedding"][:4] *= 0.3
        state = {f"rvq.layers.{n}.{k[3:]}": t for n, s in enumerate((first, second)) for k, t in s.items()}
        z = vectors()
        codes = first["vq.embedding"].numpy()
        left = z - codes[((z[:, None] - codes) ** 2).sum(2).argmin(1)]
        report, out = repaired(state, tmp_path, z_e={"z_e/rvq.layers.0": z, "z_e/rvq.layers.1": left})
        assert [r.status for r in report.repairs] == ["applied", "applied"]
        loaded = torch.load(out, weights_only=True)
        codes = loaded["rvq.layers.0.embedding"].numpy()
        now = z - codes[((z[:, None] - codes) ** 2).sum(2).argmin(1)]
        rows = loaded["rvq.layers.1.embedding"].numpy()[4:]
        nearest = np.sqrt(((rows[:, None] - now) ** 2).sum(2)).min(1)
        assert nearest.max() < 1e-4  # each revived code is a vector that the new first level leaves
        assert np.linalg.norm(now, axis=1).mean() < 0.8 * np.linalg.norm(left, axis=1).mean()

    def test_heads_in_one_tensor(self, tmp_path: Path) -> None:
        vq = vqp.VectorQuantize(
            dim=DIM * 2, heads=2, codebook_dim=DIM, codebook_size=CODES, separate_codebook_per_head=True
        )
        state = vq.state_dict()
        counts = sickly()["vq.ema_cluster_size"]
        for head in range(2):
            state["_codebook.embed"][head] = sickly(seed=head)["vq.embedding"]
            state["_codebook.cluster_size"][head] = counts
            state["_codebook.embed_avg"][head] = state["_codebook.embed"][head] * counts[:, None]
        report, out = repaired(state, tmp_path)
        assert [r.layer for r in report.repairs] == ["vq[head 0]", "vq[head 1]"]
        loaded = torch.load(out, weights_only=True)
        assert torch.equal(loaded["_codebook.embed"][:, :4], state["_codebook.embed"][:, :4])
        assert (loaded["_codebook.embed"].norm(dim=-1) < 20).all()
        vq.load_state_dict(loaded, strict=True)

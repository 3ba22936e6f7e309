"""A chain's checkpoint: its VQ layer is judged, its clusters are no codebook, a line says what they see."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from vqdoctor.core.evidence import CodeSequences, SequenceStage
from vqdoctor.core.levels import Severity
from vqdoctor.core.report import Report
from vqdoctor.engine import examine
from vqdoctor.reference.chain.model import ChainClassifier
from vqdoctor.reference.chain.task import CHAIN, SEQUENCES
from vqdoctor.reference.train import train
from vqdoctor.render import RenderOptions, renderer_of


def saved(path, checkpoint):
    torch.save(checkpoint, path)
    return path


def stage(report):
    return report.find(SequenceStage, "vq")


def by_the_model(model, codes, weights):
    """Return the assignments of codes by the HDP itself, and their spread."""
    with torch.no_grad():
        assigned, _ = model.hdp(codes[None])
    assigned = assigned[0].double().numpy()
    return assigned, float(weights @ np.abs(assigned - weights @ assigned).sum(1)) / 2


def test_a_trained_chain_is_read(tmp_path, small_chain):
    report = examine(saved(tmp_path / "chain.pt", small_chain.checkpoint))
    assert [(layer.name, layer.num_codes, layer.dim) for layer in report.layers] == [("vq", 64, 32)]
    assert not report.candidates and not report.notes
    assert not [o for o in report.outcomes if o.status == "crashed"]
    # after a few updates the clusters are about as they started, which is a symptom
    assert all(f.explained_by == "VQ302:vq" for f in report.findings if f.code == "VQ608")
    seen, model = stage(report), small_chain.model
    counts = model.vq.ema_cluster_size.double().numpy()
    _, spread = by_the_model(model, model.vq.embedding, counts / counts.sum())
    assert seen.spread == pytest.approx(spread, abs=1e-4)
    assert (seen.clusters, seen.states, seen.states_used) == (24, 7, 7)
    assert 1 < seen.told_apart <= seen.clusters_used
    law = model.hsmm.duration_model
    expected = 1 + torch.distributions.NegativeBinomial(law.log_r.exp(), logits=law.logit_p).mean
    assert seen.durations == pytest.approx(expected.tolist(), rel=1e-5)
    assert Report.from_dict(json.loads(report.to_json())) == report


@pytest.mark.parametrize("clusters", [64, 24, 2])
@pytest.mark.parametrize("wrapped", ["", "model.", "state_dict.module."])
def test_clusters_of_the_shape_of_a_codebook_are_none(tmp_path, clusters, wrapped):
    torch.manual_seed(0)
    model = ChainClassifier(clusters=clusters, base_clusters=64)
    state = {f"{wrapped}{name}": tensor for name, tensor in model.state_dict().items()}
    report = examine(saved(tmp_path / "forged.pt", state))
    assert [layer.name for layer in report.layers] == ["vq"]
    assert stage(report).clusters == clusters


def test_without_a_vq_layer_clusters_are_no_codebook_either(tmp_path):
    torch.manual_seed(0)
    model = ChainClassifier(use_vq=False, clusters=64)
    report = examine(saved(tmp_path / "forged.pt", model.state_dict()))
    assert not report.layers
    assert not [c for c in report.candidates if "codebook" in c.key]


@pytest.mark.parametrize("law", ["poisson", "gaussian"])
def test_other_laws_of_durations(tmp_path, law):
    model = ChainClassifier(durations=law, use_hdp=False, input_transitions=True)
    seen = stage(examine(saved(tmp_path / "fresh.pt", model.state_dict())))
    assert (seen.law, seen.clusters, seen.states_used) == (law, None, None)
    steps = torch.arange(1.0, 49)  # the longest is far beyond the mean
    expected = steps @ model.hsmm.duration_model().exp().detach()
    assert seen.durations == pytest.approx(expected.tolist(), rel=1e-4)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hdp.group_hdp.cluster_log_vars", torch.full((24, 32), -1e4)),
        ("hdp.group_hdp.cluster_centers", torch.full((24, 32), 3e38)),
        ("hdp.group_hdp.cluster_log_vars", torch.zeros(3)),
        ("hdp.base_hdp.current_temperature", torch.tensor(0.0)),
        ("hdp.base_hdp.stick_breaking.beta_a", torch.full((31,), float("nan"))),
        ("hdp.residual_weight", torch.tensor(-1e30)),
        ("hsmm.duration_model.logit_p", torch.full((7,), 1e30)),
        ("hsmm.duration_model.log_r", torch.zeros(7, 7)),
        ("hsmm.duration_model.mean", torch.full((7,), 1e30)),
        ("hsmm.duration_model.log_std", torch.full((7,), -1e30)),
        ("hsmm.transition_model.log_trans_matrix", torch.full((7, 7), -1e38)),
        ("hsmm.transition_model.log_trans_matrix", torch.zeros(0, 7)),
    ],
)
def test_damaged_stages_crash_nothing(tmp_path, name, value):
    law = "gaussian" if name.endswith(("model.mean", "log_std")) else "negative-binomial"
    state = ChainClassifier(durations=law).state_dict()
    assert name in state
    report = examine(saved(tmp_path / "damaged.pt", {**state, name: value}))
    assert not [o for o in report.outcomes if o.status == "crashed"]
    assert [layer.name for layer in report.layers] == ["vq"]


def test_an_ordinary_file_has_no_such_stage(tmp_path, small_chain):
    state = {k: v for k, v in small_chain.checkpoint["model"].items() if not k.startswith(("hdp", "hsmm"))}
    report = examine(saved(tmp_path / "plain.pt", state))
    assert stage(report) is None
    (outcome,) = (o for o in report.outcomes if o.code == "VQ608")
    assert outcome.status == "skipped" and "no sequence stage" in (outcome.reason or "")


def test_every_text_format_says_what_the_stage_sees(tmp_path, small_chain):
    report = examine(saved(tmp_path / "chain.pt", small_chain.checkpoint))
    for name in ("rich", "markdown", "html"):
        text = " ".join(renderer_of(name).render(report, RenderOptions()).split())
        assert "24 clusters" in text and "7 states, 7 in use" in text and "(negative binomial)" in text


@pytest.fixture(scope="module")
def chains(tmp_path_factory, sequences):
    """Really trained: one chain that collapsed, one that is sound, and the same with hot assignments."""
    folder = tmp_path_factory.mktemp("chains")
    few = {name: np.concatenate([array[:160], array[290:]]) for name, array in sequences.items()}
    np.savez(folder / "few.npz", **few)
    sound_recipe = replace(CHAIN, use_hsmm=False, warm_up_epochs=2, epochs=8)
    sick_recipe = replace(
        sound_recipe, straight_through=False, data_init=False, revive_under=0.0, vq_weight=1.0, epochs=2
    )
    sound, collapsed = (train(r, few, 0, data_set=SEQUENCES) for r in (sound_recipe, sick_recipe))
    saved(folder / "collapsed.pt", dict(collapsed.checkpoint))
    saved(folder / "sound.pt", dict(sound.checkpoint))
    hot = {name: tensor.clone() for name, tensor in sound.checkpoint["model"].items()}
    for name in hot:
        if name.endswith("current_temperature"):
            hot[name].fill_(1e4)
    saved(folder / "hot.pt", {**sound.checkpoint, "model": hot})
    return {
        name: examine(folder / f"{name}.pt", data=folder / "few.npz")
        for name in ("collapsed", "sound", "hot")
    }


def test_a_collapsed_chain_has_frozen_codes_and_its_stage_is_not_blamed(chains):
    report = chains["collapsed"]
    found = {f.code: f for f in report.findings}
    assert report.verdict == "collapsed" and report.findings[0].code == "VQ101"
    assert found["VQ604"].explained_by == "VQ101:vq"
    assert "VQ608" not in found
    assert report.find(CodeSequences, "vq").constant_share == 1.0
    (outcome,) = (o for o in report.outcomes if o.code == "VQ608")
    assert "constant input" in (outcome.reason or "")


def test_a_stage_that_loses_the_codes_is_told_from_a_sound_one(chains):
    assert not {"VQ604", "VQ608"} & {f.code for f in chains["sound"].findings}
    (found,) = (f for f in chains["hot"].findings if f.code == "VQ608")
    assert found.severity is Severity.ERROR and found.explained_by is None
    assert all(f.explained_by == "VQ608:vq" for f in chains["hot"].findings if f.code == "VQ607")

"""A model and its task run on copies, and the captured layers of another copy."""

from __future__ import annotations

import torch
from small_training import Digits, reference_layer

from vqdoctor.capture.layer import bypass, bypassable, passes, watching
from vqdoctor.capture.run import Capture
from vqdoctor.core.errors import UserError


def capture() -> Capture:
    torch.manual_seed(0)
    task = Digits()
    model = task.model()
    return Capture(model=model, task=task, views=(reference_layer(model).view,), train_batches=2)


def test_a_layer_is_located_once_and_taken_to_any_copy() -> None:
    ran = capture()
    (layer,) = ran.layers.values()
    assert (layer.path, layer.maps, layer.gap, layer.lookup_path) == ("vq", True, "", "vq")
    twin = ran.copy(training=True)
    (there,) = ran.on(twin)
    assert there.module is twin.vq and there.stored() is twin.vq.embedding
    assert layer.stored("counts") is ran.model.vq.ema_cluster_size
    assert there.reader is layer.reader  # the axes that were found serve every copy


def test_writing_on_a_copy_leaves_the_model_alone() -> None:
    ran = capture()
    before = ran.model.vq.embedding.clone()
    (layer,) = ran.on(ran.copy(training=False))
    layer.write(torch.tensor([3]), torch.full((1, 8), 9.0), 2.0)
    assert torch.equal(layer.codes()[3], torch.full((8,), 9.0))
    assert torch.equal(ran.model.vq.embedding, before)


def test_what_is_observed_is_what_the_layer_says() -> None:
    ran = capture()
    images = torch.cat([batch[0] for batch in ran.task.batches("val")])
    with torch.no_grad():
        expected = ran.model.eval()(images)["indices"]
    assert torch.equal(torch.from_numpy(ran.codes("val")["vq"]), expected.flatten(1))
    assert ran.scored["val"].samples == len(images)
    assert ran.seen["val"]["vq"].z_e.shape == (len(images), 16, 8)


def test_without_its_vq_layer_the_model_gets_z_e() -> None:
    ran = capture()
    model = ran.copy(training=False)
    layers, batch = ran.on(model), ran.first_batches[0]
    assert bypassable(model, ran.task, batch, layers)
    ((_, losses, watched),) = passes(model, ran.task, (batch,), layers, bypass)
    with torch.no_grad():
        logits = model.head(model.features(model.encoder(batch[0])).mean(dim=(2, 3)))
    assert losses.logits is not None and torch.allclose(losses.logits, logits, atol=1e-6)
    counts = layers[0].counts(watched)
    assert counts is not None and int(counts.sum()) == len(batch[0]) * 16
    assert not model.vq._forward_hooks


def test_every_call_of_steps_starts_anew_and_moves_its_own_copy() -> None:
    ran = capture()
    first, again = ([s["vq"] for s in ran.steps()] for _ in range(2))
    assert len(first) == len(again) == 2
    assert all(torch.equal(one.z_q, other.z_q) for one, other in zip(first, again, strict=True))
    assert first[0].model is first[1].model is not again[0].model
    assert first[0].vectors == first[0].z_e.numel() // 8


def test_a_model_without_a_layer_to_watch_is_the_users_error() -> None:
    ran = capture()
    ran.views = ()
    try:
        ran.on(ran.model)
    except UserError as error:
        assert "no VQ layer can be watched" in str(error)
    else:
        raise AssertionError


def test_of_several_layers_in_one_module_the_first_is_asked_for_a_change() -> None:
    ran = capture()
    model = ran.copy(training=False)
    (layer,) = ran.on(model)
    twin = layer.on(model)
    asked = []
    with torch.no_grad(), watching((layer, twin), lambda who, call: asked.append(who) or call.z_e):
        ran.task.losses(model, ran.first_batches[0])
    assert asked == [layer]

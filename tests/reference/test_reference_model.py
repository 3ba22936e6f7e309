"""The reference quantizer against vector-quantize-pytorch, and the model around it."""

import pytest
import torch
from vector_quantize_pytorch import VectorQuantize

from vqdoctor.reference.model import Conv2dVQClassifier
from vqdoctor.reference.quantizer import VectorQuantizerEMA2D


@pytest.fixture
def pair():
    """Our quantizer and theirs with the same codebook, counts and sums."""
    torch.manual_seed(0)
    ours = VectorQuantizerEMA2D(32, 8, decay=0.9)
    theirs = VectorQuantize(
        dim=8,
        codebook_size=32,
        decay=0.9,
        eps=1e-5,
        rotation_trick=False,
        accept_image_fmap=True,
        commitment_weight=1.0,
    )
    theirs._codebook.embed.copy_(ours.embedding[None])
    theirs._codebook.embed_avg.copy_(ours.ema_embedding_sum[None])
    theirs._codebook.cluster_size.copy_(ours.ema_cluster_size[None])
    return ours, theirs


@pytest.mark.parametrize("training", [True, False])
def test_agrees_with_vector_quantize_pytorch(pair, training):
    ours, theirs = (quantizer.train(training) for quantizer in pair)
    for step in range(5):
        z_e = torch.randn(4, 8, 3, 5, generator=torch.Generator().manual_seed(step)) * 1.5
        found = ours(z_e)
        z_q, indices, loss = theirs(z_e)
        torch.testing.assert_close(found.z_q, z_q)
        assert torch.equal(found.indices, indices)
        if training:
            torch.testing.assert_close(found.vq_loss, loss.squeeze())
        codebook = theirs._codebook
        torch.testing.assert_close(ours.ema_cluster_size, codebook.cluster_size[0])
        torch.testing.assert_close(ours.ema_embedding_sum, codebook.embed_avg[0])
        torch.testing.assert_close(ours.embedding, codebook.embed[0])


def test_a_fresh_quantizer_counts_one_and_sums_its_codes():
    fresh = VectorQuantizerEMA2D(16, 4)
    assert torch.equal(fresh.ema_cluster_size, torch.ones(16))
    assert torch.equal(fresh.ema_embedding_sum, fresh.embedding)
    assert not list(fresh.parameters())


def test_eval_mode_changes_nothing():
    quantizer = VectorQuantizerEMA2D(16, 4).eval()
    before = {name: tensor.clone() for name, tensor in quantizer.state_dict().items()}
    quantizer(torch.randn(2, 4, 3, 3))
    assert all(torch.equal(before[name], tensor) for name, tensor in quantizer.state_dict().items())


@pytest.mark.parametrize(("training", "straight_through"), [(True, True), (False, True), (True, False)])
def test_the_gradient_passes_only_straight_through(training, straight_through):
    quantizer = VectorQuantizerEMA2D(16, 4, straight_through=straight_through).train(training)
    z_e = torch.randn(2, 4, 3, 3, requires_grad=True)
    found = quantizer(z_e)
    if not straight_through:
        assert not found.z_q.requires_grad
        assert found.vq_loss.requires_grad
        return
    cotangent = torch.randn_like(z_e)
    (gradient,) = torch.autograd.grad(found.z_q, z_e, cotangent)
    assert torch.equal(gradient, cotangent)


def test_codes_that_are_set_survive_the_next_update():
    quantizer = VectorQuantizerEMA2D(4, 2, decay=0.9)
    codes = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0], [9.0, 9.0]])
    quantizer.set_codes(codes, torch.full((4,), 100.0))
    quantizer(codes.T.reshape(1, 2, 2, 2))
    torch.testing.assert_close(quantizer.embedding, codes, atol=1e-4, rtol=0.0)


def test_perplexity_counts_evenly_used_codes():
    quantizer = VectorQuantizerEMA2D(8, 1).eval()
    quantizer.embedding.copy_(torch.arange(8.0)[:, None])
    z_e = torch.tensor([0.0, 1.0, 2.0, 3.0]).reshape(1, 1, 2, 2)
    assert quantizer(z_e).perplexity.item() == pytest.approx(4.0)


@pytest.mark.parametrize("shape", [(3, 1, 8, 8), (2, 2, 6, 20)])
def test_the_output_has_the_input_shape_and_a_named_vq_loss(shape):
    model = Conv2dVQClassifier(num_codes=16, dim=8, channels=shape[1], classes=7)
    output = model(torch.rand(shape))
    assert output["logits"].shape == (shape[0], 7)
    assert output["reconstruction"].shape == shape
    assert output["indices"].shape == (shape[0], shape[2] // 2, shape[3] // 2)
    assert list(output["vq_loss"]) == ["vq"]


def test_without_vq_there_is_no_quantizer_and_no_vq_loss():
    model = Conv2dVQClassifier(use_vq=False)
    output = model(torch.rand(2, 1, 8, 8))
    assert output["indices"] is None
    assert output["vq_loss"] == {}
    assert not any(name.startswith("vq") for name in model.state_dict())
    output["logits"].sum().backward()
    assert all(parameter.grad is not None for parameter in model.encoder.parameters())

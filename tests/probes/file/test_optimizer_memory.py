import math

import numpy as np
import pytest
import torch
import transformers
from releases import torch_since
from torch import nn

from vqdoctor.core.evidence import Unavailable
from vqdoctor.probes.file import optimizer_memory
from vqdoctor.saved.placement import codebook_slot


def by_hand(model, optimizer, part):
    """Root mean square of the bias-corrected second moments, straight from the live optimizer."""
    squares = []
    for parameter in getattr(model, part).parameters():
        state = optimizer.state.get(parameter)
        corrected = (
            state["exp_avg_sq"] / (1 - 0.999 ** state["step"]) if state else torch.zeros_like(parameter)
        )
        squares.append(corrected.flatten())
    return math.sqrt(torch.cat(squares).mean())


@pytest.fixture
def memory(examine, ask):
    def memory(model, *optimizers, layer="vq"):
        states = {f"optimizer{i}": o.state_dict() for i, o in enumerate(optimizers)}
        return ask(optimizer_memory, examine({"model": model.state_dict(), **states}), layer)

    return memory


def encoder_then_rest(model):
    return [{"params": model.encoder.parameters()}, {"params": model.decoder.parameters(), "lr": 1e-2}]


def with_and_without_decay(model):
    biases = [p for p in model.parameters() if p.ndim == 1]
    return [{"params": [p for p in model.parameters() if p.ndim > 1]}, {"params": biases}]


@pytest.mark.parametrize("groups", [None, encoder_then_rest])
@pytest.mark.parametrize("ste", [True, False])
def test_is_what_the_live_optimizer_holds(tiny, trained, memory, groups, ste):
    model = tiny(ste=ste)
    optimizer = trained(model, 40, groups=groups)
    found = memory(model, optimizer)
    assert found.before_gradient == pytest.approx(by_hand(model, optimizer, "encoder"), rel=1e-5)
    assert found.after_gradient == pytest.approx(by_hand(model, optimizer, "decoder"), rel=1e-5)
    assert found.ratio == pytest.approx(found.before_gradient / found.after_gradient)
    assert (found.parameters, found.sample_size, found.codebook_listed) == (10, 10, False)


def test_a_cut_encoder_shows_in_the_ratio(tiny, trained, memory):
    healthy, cut = tiny(), tiny(ste=False)
    ratios = [memory(m, trained(m, 40, weight=0.01)).ratio for m in (healthy, cut)]
    assert ratios[1] < 0.02 * ratios[0]


def test_an_encoder_without_any_state_never_had_a_gradient(tiny, trained, memory):
    model = tiny(ste=False)
    optimizer = trained(model, 40, weight=0.0)
    for parameter in model.encoder.parameters():
        optimizer.state.pop(parameter, None)
    found = memory(model, optimizer)
    assert (found.before_gradient, found.ratio, found.sample_size) == (0.0, 0.0, 4)


def test_groups_out_of_the_models_order_align_by_group(tiny, trained, memory):
    model = tiny()
    optimizer = trained(model, 40, groups=with_and_without_decay)
    found = memory(model, optimizer)
    assert found.before_gradient == pytest.approx(by_hand(model, optimizer, "encoder"), rel=1e-5)
    assert found.after_gradient == pytest.approx(by_hand(model, optimizer, "decoder"), rel=1e-5)


@torch_since("2.6", "named parameters in an optimizer")
def test_two_optimizers_and_names(tiny, trained, memory):
    model = tiny()
    first = torch.optim.Adam([(f"module.{n}", p) for n, p in model.named_parameters() if "encoder" in n])
    second = torch.optim.Adam([(n, p) for n, p in model.named_parameters() if "decoder" in n])
    scores, vq_loss = model(torch.randn(64, 8))
    (scores.square().mean() + vq_loss).backward()
    first.step()
    second.step()
    found = memory(model, second, first)
    both = {**first.state, **second.state}
    joint = type("Joint", (), {"state": both})
    assert found.before_gradient == pytest.approx(by_hand(model, joint, "encoder"), rel=1e-5)
    assert found.after_gradient == pytest.approx(by_hand(model, joint, "decoder"), rel=1e-5)


class GradientCodebook(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(8, 4)
        self.vq = nn.Module()
        self.vq.embedding = nn.Embedding(16, 4)
        self.decoder = nn.Linear(4, 4)

    def step(self, optimizer, rows):
        z = self.encoder(torch.randn(32, 8))
        q = self.vq.embedding(torch.randint(0, rows, (32,)))
        optimizer.zero_grad()
        (self.decoder(z + (q - z).detach()).square().mean() + (q - z.detach()).square().mean()).backward()
        optimizer.step()


@pytest.mark.parametrize("rows", [1, 5, 16])
def test_rows_that_were_never_chosen(memory, rows):
    torch.manual_seed(0)
    model = GradientCodebook()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.03)
    for _ in range(30):
        model.step(optimizer, rows)
    found = memory(model, optimizer)
    assert found.codebook_listed and found.codebook_has_state
    assert found.codebook_untouched_rows == 16 - rows
    assert found.weight_decay == 0.03
    state = optimizer.state[model.vq.embedding.weight]
    state["exp_avg_sq"] = state["exp_avg_sq"].half()
    assert memory(model, optimizer).codebook_untouched_rows is None, (
        "squares that are rounded to zero tell nothing"
    )


def test_a_codebook_that_is_listed_without_state_never_had_a_gradient(memory):
    model = GradientCodebook()
    optimizer = torch.optim.Adam(model.parameters())
    model.step(optimizer, 4)
    del optimizer.state[model.vq.embedding.weight]
    found = memory(model, optimizer)
    assert (found.codebook_listed, found.codebook_has_state) == (True, False)
    assert found.codebook_untouched_rows is None


def test_gaps_say_why(tiny, trained, memory):
    model = tiny()
    nothing = memory(model)
    assert isinstance(nothing, Unavailable)
    assert nothing.reason == "the file has no optimizer state" and "state_dict" in nothing.hint
    found = memory(model, trained(model, 5, optimizer=momentum))
    assert found.ratio is None and found.sample_size == 10, "SGD keeps no squared gradients"
    stranger = nn.Linear(77, 3)
    optimizer = torch.optim.Adam(stranger.parameters())
    stranger(torch.randn(2, 77)).sum().backward()
    optimizer.step()
    assert "do not fit" in memory(model, optimizer).reason
    broken = trained(model, 5)
    broken.state[model.encoder[0].weight]["exp_avg_sq"][0, 0] = float("inf")
    assert "non-finite" in memory(model, broken).reason
    negative = trained(model, 5)
    negative.state[model.encoder[0].weight]["exp_avg_sq"].fill_(-1e-3)
    assert "negative squares" in memory(model, negative).reason


def momentum(parameters, lr):
    return torch.optim.SGD(parameters, lr=lr, momentum=0.9)


def test_the_whole_file_is_summed_up(tiny, trained, memory):
    model = tiny()
    assert memory(model, layer=None).parameters == 0
    found = memory(model, trained(model, 3), layer=None)
    assert (found.parameters, found.sample_size) == (10, 10)


def test_another_layers_codebook_is_neither_before_nor_after(examine, ask):
    torch.manual_seed(0)
    levels = nn.ModuleList(nn.ModuleDict({"codebook": nn.Embedding(16, 4)}) for _ in range(2))
    in_order = nn.ModuleDict({"encoder": nn.Linear(8, 4), "quantizers": levels, "head": nn.Linear(4, 4)})
    optimizer = torch.optim.Adam(in_order.parameters())
    for parameter in in_order.parameters():
        parameter.grad = torch.full_like(parameter, 1000.0 if parameter.shape == (16, 4) else 2.0)
    optimizer.step()
    context = examine({"model": in_order.state_dict(), "optimizer": optimizer.state_dict()})
    assert len(context.views) == 2
    for view in context.views:
        found = ask(optimizer_memory, context, view.name)
        assert (found.before_gradient, found.after_gradient) == pytest.approx((2.0, 2.0), rel=1e-5)
        assert found.codebook_listed and found.codebook_untouched_rows == 0


OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=1e-2),
    "Adafactor": lambda p: torch.optim.Adafactor(p, lr=1e-2),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=1e-3),
    "transformers": lambda p: transformers.Adafactor(p, lr=1e-3, relative_step=False, scale_parameter=False),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("rows", [5, 16])
def test_what_every_optimizer_remembers(memory, name, rows):
    torch.manual_seed(0)
    model = GradientCodebook()
    optimizer = OPTIMIZERS[name](model.parameters())
    for _ in range(10):
        model.step(optimizer, rows)
    found = memory(model, optimizer)
    assert (found.codebook_listed, found.codebook_has_state) == (True, True)
    assert found.codebook_untouched_rows == 16 - rows
    assert (found.ratio is None) == (name == "SGD")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_codebook_without_a_gradient_shows_in_every_optimizer(memory, name):
    torch.manual_seed(0)
    model = GradientCodebook()
    optimizer = OPTIMIZERS[name](model.parameters())
    frozen = model.vq.embedding.weight.requires_grad_(False)
    for _ in range(3):
        model.step(optimizer, 16)
    found = memory(model, optimizer)
    assert frozen.grad is None and (found.codebook_listed, found.codebook_has_state) == (True, False)


def test_the_size_of_adagrads_and_adafactors_gradients(memory):
    """Constant gradients of 2 before and of 0.5 after the layer, whatever the optimizer keeps of them."""
    for make in OPTIMIZERS.values():
        torch.manual_seed(0)
        model = GradientCodebook()
        optimizer = make(model.parameters())
        for _ in range(5):
            for name, parameter in model.named_parameters():
                parameter.grad = torch.full_like(parameter, 2.0 if name.startswith("encoder") else 0.5)
            optimizer.step()
        found = memory(model, optimizer)
        if found.ratio is not None:
            assert found.ratio == pytest.approx(4.0, rel=1e-3)


def test_eight_bit_moments_are_a_tables_entries_times_a_blocks_scale(memory):
    """As bitsandbytes keeps them; small parameters stay in float32."""
    torch.manual_seed(0)
    model = GradientCodebook()
    optimizer = torch.optim.Adam(model.parameters(), betas=(0.9, 0.5))
    for _ in range(5):
        model.step(optimizer, 16)
    plain = memory(model, optimizer)
    table = torch.linspace(0, 1, 256)
    for state in optimizer.state.values():
        values = state.pop("exp_avg_sq").flatten()
        blocks = values.split(8)
        state["state1"] = state.pop("exp_avg").to(torch.uint8)
        state["absmax2"] = torch.stack([block.max() for block in blocks])
        scaled = torch.cat([block / block.max().clamp_min(1e-30) for block in blocks])
        state["state2"] = (scaled * 255).round().to(torch.uint8).reshape(state["state1"].shape)
        state["qmap2"] = table
    found = memory(model, optimizer)
    assert found.before_gradient == pytest.approx(plain.before_gradient, rel=0.01)
    assert found.after_gradient == pytest.approx(plain.after_gradient, rel=0.01)
    assert found.codebook_listed and found.codebook_untouched_rows is None


def test_a_codebook_that_is_left_out_of_the_optimizer(memory):
    torch.manual_seed(0)
    model = GradientCodebook()
    for parts, left_out in (("encoder decoder", True), ("decoder", False), ("encoder vq decoder", False)):
        chosen = [p for part in parts.split() for p in getattr(model, part).parameters()]
        optimizer = torch.optim.Adam(chosen)
        model.step(optimizer, 16)
        found = memory(model, optimizer)
        assert found.left_out == found.unlisted == left_out, parts


def test_a_bare_parameter_that_is_left_out_may_be_a_buffer(memory, tiny, trained):
    model = tiny()  # its codes are a buffer, and its counts show who writes it
    found = memory(model, trained(model, 3))
    assert found.unlisted and not found.left_out


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.9, 0.95)])
@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_the_two_moments_tell_when_a_code_had_its_last_gradient(memory, examine, kind, betas):
    """Codes 0 to 7 are chosen to the end, 8 to 11 until 150 updates before it, 12 and 13 until 600."""
    torch.manual_seed(0)
    model = GradientCodebook()
    optimizer = kind(model.parameters(), betas=betas)
    for update in range(900):
        model.step(optimizer, 14 if update < 300 else 12 if update < 750 else 8)
    found = memory(model, optimizer)
    assert found.codebook_untouched_rows == 2
    assert (found.recent_codes, found.recent_codes_high) == (8, 12)
    (view,) = examine({"model": model.state_dict()}).views
    slot = codebook_slot_of(model, optimizer, examine)
    ages = optimizer_memory.ages_since_gradient(slot, view)
    assert (ages[:8] < 100).all() and np.isinf(ages[14:]).all()
    assert ((ages[8:12] >= 150) & (ages[8:12] < 250)).all() and (ages[12:14] >= 600).all()


def codebook_slot_of(model, optimizer, examine):
    context = examine({"model": model.state_dict(), "opt": optimizer.state_dict()})
    (view,) = context.views
    return codebook_slot(context.saved, view, context.views)


def test_too_few_updates_or_one_moment_tell_no_age(memory):
    torch.manual_seed(0)
    short = {"betas": (0.5, 0.9)}  # a mean gradient of which nothing is left after 400 updates
    for kind, updates, options in (
        (torch.optim.Adam, 500, {}),
        (torch.optim.RMSprop, 900, {}),
        (torch.optim.Adam, 900, short),
    ):
        model = GradientCodebook()
        optimizer = kind(model.parameters(), **options)
        for _ in range(updates):
            model.step(optimizer, 8)
        found = memory(model, optimizer)
        assert (found.recent_codes, found.recent_codes_high) == (None, None)


@pytest.mark.parametrize("broken", [float("nan"), -1.0])
def test_a_broken_second_moment_tells_no_age(memory, broken):
    torch.manual_seed(0)
    model = GradientCodebook()
    optimizer = torch.optim.Adam(model.parameters())
    for _ in range(800):
        model.step(optimizer, 8)
    optimizer.state[model.vq.embedding.weight]["exp_avg_sq"][3] = broken
    assert memory(model, optimizer).recent_codes is None


@pytest.mark.parametrize("written", [False, True])
def test_a_buffer_is_left_out_where_its_ema_never_ran(memory, written):
    torch.manual_seed(0)
    model = GradientCodebook()
    codes = model.vq.embedding.weight.detach().clone()
    counts = torch.rand(16) + 1 if written else torch.ones(16)
    for name, values in (("code", codes), ("n", counts), ("m", codes * counts[:, None])):
        model.vq.register_buffer(name, values)
    optimizer = torch.optim.Adam([*model.encoder.parameters(), *model.decoder.parameters()])
    model.step(optimizer, 16)
    del model.vq.embedding
    assert memory(model, optimizer).left_out == (not written)


class Autoencoder(nn.Module):
    """Encoder and decoder of the same shapes, and a discriminator of theirs."""

    def __init__(self):
        super().__init__()

        def part():
            return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))

        self.encoder = part()
        self.quantize = nn.Module()
        self.quantize.embedding = nn.Embedding(32, 8)
        self.decoder = part()
        self.loss = nn.Module()
        self.loss.discriminator = part()


def stepped(sizes, *groups):
    """An Adam over groups of modules, after steps with gradients of the given sizes by part."""
    optimizer = torch.optim.Adam([{"params": [p for m in group for p in m.parameters()]} for group in groups])
    for _ in range(3):
        for module, size in sizes.items():
            for parameter in module.parameters():
                parameter.grad = torch.full_like(parameter, size)
        optimizer.step()
    return optimizer


def test_a_discriminators_optimizer_is_not_behind_the_layer(examine, ask):
    model = Autoencoder()
    sizes = {model.encoder: 2.0, model.quantize: 1.0, model.decoder: 1.0, model.loss: 1000.0}
    own = stepped(sizes, [model.encoder, model.quantize, model.decoder])
    judge = stepped(sizes, [model.loss.discriminator])
    own_state, judges = states = [own.state_dict(), judge.state_dict()]
    apart = {key: value for key, value in model.state_dict().items() if not key.startswith("loss.")}
    for saved in (
        {"state_dict": model.state_dict(), "optimizer_states": states},
        {"state_dict": model.state_dict(), "optimizer_states": states[::-1]},
        {
            "model": apart,
            "discriminator": model.loss.state_dict(),
            "optim_g": states[0],
            "optim_d": states[1],
        },
        {"model": apart, "optimizer": own_state, "optimizer_disc": judges},
    ):
        found = ask(optimizer_memory, examine(saved), "quantize")
        assert found.ratio == pytest.approx(2.0, rel=1e-4), list(saved)
        assert found.codebook_listed and found.parameters == 9


def test_groups_in_another_order_are_placed_or_declared_ambiguous(examine, ask):
    model = Autoencoder()
    del model.loss
    model.encoder[0] = nn.Linear(5, 8)
    sizes = {model.encoder: 2.0, model.quantize: 1.0, model.decoder: 1.0}
    groups = [model.decoder], [model.quantize], [model.encoder]
    saved = {"model": model.state_dict(), "optimizer": stepped(sizes, *groups).state_dict()}
    assert ask(optimizer_memory, examine(saved), "quantize").ratio == pytest.approx(2.0, rel=1e-4)
    alike = Autoencoder()
    del alike.loss
    sizes = {alike.encoder: 2.0, alike.quantize: 1.0, alike.decoder: 1.0}
    groups = [alike.decoder], [alike.quantize], [alike.encoder]
    saved = {"model": alike.state_dict(), "optimizer": stepped(sizes, *groups).state_dict()}
    assert "several orders" in ask(optimizer_memory, examine(saved), "quantize").reason


def test_weights_and_biases_in_groups_of_their_own(examine, ask):
    model = Autoencoder()
    del model.loss
    for name, parameter in model.named_parameters():
        parameter.grad = torch.full_like(parameter, 2.0 if name.startswith("encoder") else 1.0)
    optimizer = torch.optim.AdamW(with_and_without_decay(model))
    model.quantize.embedding.weight.grad = None
    optimizer.step()
    found = ask(
        optimizer_memory,
        examine({"model": model.state_dict(), "optimizer": optimizer.state_dict()}),
        "quantize",
    )
    assert found.ratio == pytest.approx(2.0, rel=1e-4)
    assert (found.codebook_listed, found.codebook_has_state) == (True, False)


@pytest.mark.parametrize(
    "order", [("encoder", "decoder", "vq"), ("vq", "encoder", "decoder"), ("decoder", "vq", "encoder")]
)
def test_where_the_order_contradicts_the_names_the_names_decide(order, examine, ask):
    torch.manual_seed(0)
    parts = {
        "encoder": nn.Linear(8, 4),
        "vq": nn.ModuleDict({"codebook": nn.Embedding(16, 4)}),
        "decoder": nn.Linear(4, 8),
    }
    model = nn.ModuleDict({name: parts[name] for name in order})
    optimizer = torch.optim.Adam(model.parameters())
    for name, parameter in model.named_parameters():
        parameter.grad = torch.full_like(parameter, {"encoder": 2.0, "decoder": 3.0}.get(name[:7], 1.0))
    optimizer.step()
    found = ask(
        optimizer_memory, examine({"model": model.state_dict(), "optimizer": optimizer.state_dict()}), "vq"
    )
    assert (found.before_gradient, found.after_gradient) == pytest.approx((2.0, 3.0), rel=1e-5)
    assert found.contradicted


def test_a_contradiction_without_both_names_is_told_and_the_order_kept(examine, ask):
    vq = nn.ModuleDict({"codebook": nn.Embedding(16, 4)})
    model = nn.ModuleDict({"stem": nn.Linear(8, 4), "vq": vq, "encoder": nn.Linear(4, 8)})
    optimizer = torch.optim.Adam(model.parameters())
    for name, parameter in model.named_parameters():
        parameter.grad = torch.full_like(parameter, 2.0 if name.startswith("stem") else 3.0)
    optimizer.step()
    found = ask(
        optimizer_memory, examine({"model": model.state_dict(), "optimizer": optimizer.state_dict()}), "vq"
    )
    assert found.contradicted and found.before_gradient == pytest.approx(2.0, rel=1e-5)


def test_a_word_that_stands_before_the_layers_own_name_says_nothing(examine, ask):
    parts = nn.ModuleDict({"down": nn.Linear(8, 4), "vq": nn.ModuleDict({"codebook": nn.Embedding(16, 4)})})
    parts["up"] = nn.Linear(4, 4)
    model = nn.ModuleDict({"encoder": parts, "decoder": nn.Linear(4, 8)})
    optimizer = torch.optim.Adam(model.parameters())
    for name, parameter in model.named_parameters():
        parameter.grad = torch.full_like(parameter, 2.0 if "down" in name else 3.0)
    optimizer.step()
    context = examine({"model": model.state_dict(), "optimizer": optimizer.state_dict()})
    found = ask(optimizer_memory, context, "encoder.vq")
    assert (found.before_gradient, found.after_gradient) == pytest.approx((2.0, 3.0), rel=1e-5)
    assert not found.contradicted

"""VQ layers that show by their output alone, and modules that only look like one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional
from vector_quantize_pytorch import FSQ, LFQ, ResidualFSQ

from vqdoctor.capture.discover import discover
from vqdoctor.capture.tables import are_rows

DIM = 8


class Prototypes(nn.Module):
    """A user's quantizer whose codebook [D, K] has a name of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.anchors = nn.Parameter(torch.randn(DIM, 16))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        codes = self.anchors.T[torch.cdist(z, self.anchors.T.expand(len(z), -1, -1)).argmin(-1)]
        return z + (codes - z).detach()


class Signs(nn.Module):
    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return z + (torch.sign(z) - z).detach()


class Experts(nn.Module):
    """A mixture of experts: integers come out, but they do not say what else does."""

    def __init__(self) -> None:
        super().__init__()
        self.router, self.expert = nn.Linear(DIM, 4), nn.Linear(DIM, DIM)

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = self.router(z).argmax(-1)
        return self.expert(z) * (chosen + 1)[..., None], chosen


class Does(nn.Module):
    """What a function does, as a module."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function, self.places = function, nn.Parameter(torch.randn(8, DIM))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.function(z)


class Places(Does):
    """Learned positions: rows of a stored table, the same for every sample."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.places.expand_as(z)


class Beside(nn.Module):
    """Two modules on the same input."""

    def __init__(self, one: nn.Module, other: nn.Module) -> None:
        super().__init__()
        self.one, self.other, self.first = one, other, First()

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.one(z) + self.first(self.other(z)) + z


class First(nn.Module):
    def forward(self, out: tuple[torch.Tensor, ...] | torch.Tensor) -> torch.Tensor:
        return out[0] if isinstance(out, tuple) else out


def found_in(layer: nn.Module, known: tuple[str, ...] = ()):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, DIM), layer, First(), nn.Linear(DIM, 3))
    return discover(model, lambda m: m(torch.randn(16, 8, 3)), known)


@pytest.mark.parametrize(
    ("layer", "codes"),
    [
        (lambda: FSQ(levels=[8, 5, 5], dim=DIM), {"1": 200}),
        (lambda: FSQ(levels=[8, 8, 8, 5, 5, 5], dim=DIM), {"1": 64000}),
        (lambda: LFQ(codebook_size=64, dim=DIM), {"1": 64}),
        (lambda: ResidualFSQ(levels=[5, 5], dim=DIM, num_quantizers=2), {"1.layers.0": 25, "1.layers.1": 25}),
        (Signs, {"1": 256}),
    ],
    ids=["fsq", "large fsq", "lfq", "residual fsq", "signs"],
)
def test_layers_without_a_codebook(layer, codes) -> None:
    found = found_in(layer())
    assert {view.name: view.num_codes for view in found.implicit} == codes
    assert not found.explicit
    with pytest.raises(LookupError, match="no codebook"):
        _ = found.implicit[0].codebook


def test_rows_of_a_large_codebook_are_known_to_the_last_digit() -> None:
    rows = 4 + torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
    assert are_rows(rows, rows.clone())
    assert not are_rows(rows + 0.01, rows)
    assert float(torch.cdist(rows, rows.clone()).amin(dim=1).max()) > 1e-3  # as x² - 2xy + y²


def test_a_codebook_is_known_by_its_rows() -> None:
    found = found_in(layer := Prototypes())
    (view,) = found.explicit
    assert (view.name, view.num_codes, view.dim) == ("1", 16, DIM)
    assert {view.name: view.keys["codebook"] for view in found.explicit} == {"1": "1.anchors"}
    assert torch.equal(torch.from_numpy(view.codebook), layer.anchors.T)


@pytest.mark.parametrize("offset", [0.0, 30.0, 3000.0])
def test_a_codebook_far_from_0_is_known_by_its_rows(offset: float) -> None:
    torch.manual_seed(0)
    layer = Prototypes()
    with torch.no_grad():
        layer.anchors.mul_(0.5).add_(offset)
    model = nn.Sequential(nn.Linear(DIM, DIM), layer)
    with torch.no_grad():
        model[0].bias += offset
    found = discover(model, lambda copy: copy(torch.randn(4, 100, DIM)))
    (view,) = found.explicit
    assert view.keys["codebook"] == "1.anchors" and not found.implicit


def test_of_equal_codebooks_each_layer_has_its_own() -> None:
    layer = nn.Sequential(Prototypes(), nn.Linear(DIM, DIM), Prototypes())
    with torch.no_grad():
        layer[2].anchors.copy_(layer[0].anchors)
    found = found_in(layer)
    keys = {view.name: view.keys["codebook"] for view in found.explicit}
    assert keys == {"1.0": "1.0.anchors", "1.2": "1.2.anchors"}


def test_layers_of_one_tensor_are_one_layer() -> None:
    layer = nn.Sequential(Prototypes(), nn.Linear(DIM, DIM), Prototypes())
    layer[2].anchors = layer[0].anchors
    found = found_in(layer)
    (view,) = found.explicit
    assert (view.name, view.shared_with) == ("1.0", ("1.2",))
    assert found.places == {"1.0": "1.0", "1.2": "1.2"}


class Many(Prototypes):
    """As many codes as vectors come in: most of them are different ones."""

    def __init__(self, *, looks: bool = True) -> None:
        super().__init__()
        self.anchors, self.looks = nn.Parameter(torch.randn(DIM, 400)), looks

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return super().forward(z) if self.looks else self.anchors.T[: z.shape[1]].expand_as(z)


def test_a_table_that_a_batch_looks_up_nearly_whole_is_known_by_its_rows() -> None:
    (view,) = found_in(Many()).explicit
    assert (view.num_codes, view.dim, view.keys["codebook"]) == (400, DIM, "1.anchors")
    assert not found_in(Many(looks=False)).explicit  # learned positions


def test_such_a_table_far_from_zero_is_known_too() -> None:
    layer = Many()
    with torch.no_grad():
        layer.anchors.add_(30.0)
    (view,) = found_in(nn.Sequential(Does(lambda z: z + 30.0), layer)).explicit
    assert (view.name, view.num_codes) == ("1.1", 400)


class Groups(nn.Module):
    """A product quantizer whose tables lie in one tensor, [H, K, D] or [H, D, K], with a buffer beside it."""

    def __init__(
        self, codes: int = 12, *, columns: bool = False, beside: float = 1.0, counts: bool = True
    ) -> None:
        super().__init__()
        self.columns, self.counts = columns, counts
        self.pots = nn.Parameter(torch.randn((2, DIM // 2, codes) if columns else (2, codes, DIM // 2)))
        self.register_buffer("tally", torch.full((2, codes), beside))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        tables = self.pots.mT if self.columns else self.pots
        parts = zip(z.chunk(2, -1), tables, strict=True)
        if self.training and self.counts:
            self.tally.mul_(0.9)
        chosen = [table[torch.cdist(part, table.expand(len(z), -1, -1)).argmin(-1)] for part, table in parts]
        return z + (torch.cat(chosen, -1) - z).detach()


@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("codes", [12, 300])
def test_the_tables_of_groups_in_one_tensor_are_known_by_their_rows(codes: int, *, columns: bool) -> None:
    found = found_in(layer := Groups(codes, columns=columns))
    assert not found.implicit
    assert [view.name for view in found.explicit] == ["1[head 0]", "1[head 1]"]
    assert found.places == {"1[head 0]": "1", "1[head 1]": "1"}
    tables = layer.pots.mT if columns else layer.pots
    for view, table in zip(found.explicit, tables, strict=True):
        assert (view.num_codes, view.dim, view.keys["codebook"]) == (codes, DIM // 2, "1.pots")
        assert torch.equal(torch.from_numpy(view.codebook), table.detach())
        assert view.keys["counts"] == "1.tally" and view.counts is not None and view.counts.sum() == codes


@pytest.mark.parametrize(("beside", "counts"), [(0.0, True), (3.0, True), (1.0, False)])
def test_a_buffer_of_other_values_or_that_no_training_writes_may_be_anything(
    beside: float, counts: bool
) -> None:
    for view in found_in(Groups(beside=beside, counts=counts)).explicit:
        assert view.counts is None and "counts" not in view.keys


@pytest.mark.parametrize(
    "layer",
    [
        lambda: Does(lambda z: nn.Conv1d(DIM, DIM, 3, padding=1)(z.mT).mT),
        Experts,
        lambda: nn.Sequential(nn.Linear(DIM, DIM), nn.ReLU()),
        lambda: nn.Dropout(0.5),
        lambda: nn.Softmax(dim=-1),
        lambda: nn.Linear(DIM, DIM).requires_grad_(False),
        lambda: Places(torch.clone),
        lambda: Does(lambda z: z.mean(1, keepdim=True).expand_as(z)),
        lambda: Does(lambda z: functional.relu(z - 1.5)),
        lambda: Does(lambda z: functional.hardtanh(30 * z)),
        lambda: Does(lambda z: functional.one_hot(z.argmax(-1), DIM).float()),
        lambda: Does(lambda z: torch.ones_like(z).tril()),
        lambda: Does(torch.zeros_like),
    ],
    ids=[
        "convolution",
        "experts",
        "relu",
        "dropout",
        "softmax",
        "linear",
        "positions",
        "pool",
        "sparse",
        "clip",
        "router",
        "mask",
        "dead",
    ],
)
def test_what_does_not_quantize(layer) -> None:
    found = found_in(layer())
    assert not found.explicit and not found.implicit


def test_a_codebook_of_which_one_code_is_left_is_known_all_the_same() -> None:
    layer = Prototypes()
    with torch.no_grad():
        layer.anchors[:, 1:] += 100
    (view,) = found_in(layer).explicit
    assert (view.name, view.num_codes) == ("1", 16)


def test_a_dead_encoder_on_which_a_code_stands_is_no_layer() -> None:
    layer = Prototypes()
    with torch.no_grad():
        layer.anchors[:, 0] = 1.0
    found = found_in(nn.Sequential(Does(torch.ones_like), layer))
    assert [view.name for view in found.explicit] == ["1"]  # what holds the codebook, and not "1.0"


def test_few_levels_without_codes_count_only_where_nothing_else_quantizes() -> None:
    for other in (FSQ(levels=[8, 5, 5], dim=DIM), Prototypes()):
        found = found_in(Beside(Does(torch.sign), other))
        assert [view.name for view in (*found.explicit, *found.implicit)] == ["1.other"]
    assert not found_in(Signs(), known=("0",)).implicit
    assert [view.confidence.label for view in found_in(Signs()).implicit] == ["low"]


class Mapped(nn.Module):
    """SimVQ: a frozen table that a trained matrix maps to the codes."""

    def __init__(self, rows: int, *, tells: bool) -> None:
        super().__init__()
        self.tells = tells
        self.register_buffer("basis", torch.randn(rows, DIM))
        self.map = nn.Linear(DIM, DIM, bias=False)

    def forward(self, z: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        table = self.map(self.basis)
        chosen = torch.cdist(z, table.expand(len(z), -1, -1)).argmin(-1)
        z_q = z + (table[chosen] - z).detach()
        return (z_q, chosen) if self.tells else z_q


@pytest.mark.parametrize(("rows", "tells"), [(40, True), (40, False), (200, True)])
def test_codes_that_are_made_of_a_table_are_as_many_as_its_rows(rows: int, tells: bool) -> None:
    (view,) = found_in(Mapped(rows, tells=tells)).implicit
    assert view.num_codes == rows


class Directions(nn.Module):
    """Codes that are the directions of a matrix's columns."""

    def __init__(self) -> None:
        super().__init__()
        self.anchors = nn.Parameter(3 * torch.randn(DIM, 40))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        codes = functional.normalize(self.anchors, dim=0).T
        chosen = (functional.normalize(z, dim=-1) @ codes.T).argmax(-1)
        return z + (codes[chosen] - z).detach()


def test_codes_that_are_directions_are_found_in_the_stored_table() -> None:
    (view,) = found_in(Directions()).explicit
    assert view.place.transposed and view.num_codes == 40


def test_what_is_known_is_not_found_again() -> None:
    assert not found_in(Prototypes(), known=("1",)).explicit


def test_a_layer_that_says_its_levels_is_found_behind_a_dead_encoder() -> None:
    (view,) = found_in(nn.Sequential(Does(torch.ones_like), FSQ(levels=[8, 5, 5], dim=DIM))).implicit
    assert (view.name, view.num_codes) == ("1.1", 200)


class FloatLevels(nn.Module):
    """A home-made FSQ without an estimator, whose levels are a buffer of floats."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("levels", torch.full((DIM,), 5.0))

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rounded = torch.round(2 * torch.tanh(z))
        return rounded / 2, ((rounded + 2) * 5 ** torch.arange(DIM)).sum(-1).long()


@pytest.mark.parametrize("gain", [1.0, 1e-3], ids=["in use", "collapsed to one code"])
def test_levels_may_be_floats(gain) -> None:
    (view,) = found_in(nn.Sequential(Does(lambda z: gain * z), FloatLevels())).implicit
    assert (view.name, view.num_codes) == ("1.1", 5**DIM)


@pytest.mark.parametrize("module", [FSQ(levels=[8, 6, 5, 5]), LFQ(codebook_size=16, dim=4)])
def test_a_single_vector_of_each_sample_keeps_its_channels(module: nn.Module) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(10, 4), module), torch.randn(256, 1, 10)
    (view,) = discover(model, lambda m: m(x)).implicit
    assert view.dim == 4

"""Patches of small real-looking modules: what is proposed first, and that nothing else changes."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import libcst as cst
import pytest

from vqdoctor.checks import all_checks
from vqdoctor.core.errors import UserError
from vqdoctor.remedies import with_advice
from vqdoctor.source import Place, Written, diff, has_patch, parse, patches, place_in, proposals
from vqdoctor.source.edit import code, edited, every, functional
from vqdoctor.source.patch import Patch

PATIENTS = Path(__file__).with_name("patients")
FILES = sorted(PATIENTS.glob("*.py"))
CODEBOOKS = {
    "zalando": "vq._embedding.weight",
    "taming": "vq.embedding.weight",
    "rosinality": "vq.embed",
    "videogpt": "vq.embeddings",
}
STATISTICS = {
    "rosinality": {"counts": "vq.cluster_size", "sums": "vq.embed_avg"},
    "videogpt": {"counts": "vq.N", "sums": "vq.z_avg"},
}
FIRST = [
    ("zalando_without_estimator", "straight-through", ["quantized = inputs + (quantized - inputs).detach()"]),
    ("taming_estimator_cut", "straight-through", ["z_q = z + (z_q - z).detach()"]),
    ("encoder_detached", "reattach-encoder", ["return self.head(z_q), vq_loss"]),
    (
        "codebook_never_trained",
        "train-codebook",
        ["loss = F.mse_loss(flat, z_q.detach()) + F.mse_loss(z_q, flat.detach())"],
    ),
    ("summed_loss", "match-reductions", ["F.mse_loss(z_q, flat.detach())", "F.mse_loss(flat, z_q.detach())"]),
    ("weight_of_fifty", "lower-vq-weight", ["vq_weight = 0.1  # as in the paper?"]),
    (
        "rosinality_normaliser_lost",
        "sound-ema-rule",
        [
            "total = self.cluster_size.sum()",
            "self.embed.copy_(self.embed_avg / smoothed[None, :])  # normalised",
        ],
    ),
    (
        "videogpt_revival_undone",
        "revive-dead-codes",
        ["self.z_avg.data[dead] = self.embeddings.data[dead] * self.N.data[dead][:, None]"],
    ),
    ("lucidrains_slow_ema", "faster-ema", ["decay=0.95,"]),
    (
        "diffusers_legacy",
        "swap-loss-terms",
        ["self.vq = VectorQuantizer(CODES, DIM, beta=0.05, legacy=False)"],
    ),
    ("gain_of_forty", "normalise-before-vq", ["z = F.layer_norm(z, z.shape[-1:])"]),
]
CONSTRUCTORS = {
    "lucidrains_slow_ema": ("VectorQuantize", "decay", "0.95"),
    "diffusers_legacy": ("VectorQuantizer", "legacy", "False"),
}


@cache
def _place(name: str) -> Place:
    style = name.partition("_")[0]
    keys = {"codebook": CODEBOOKS.get(style, "vq.codebook"), **STATISTICS.get(style, {})}
    classes = [("vq.embedding", "Embedding"), ("vq", "Quantizer"), ("", "Net")]
    return place_in(
        parse(PATIENTS / f"{name}.py"),
        [Written(path=path, name=kind) for path, kind in classes],
        keys,
        transposed=style == "rosinality",
        constructor=CONSTRUCTORS.get(name),
        in_model={"parameter": f"model.{keys['codebook']}"},
    )


@pytest.mark.parametrize(("name", "remedy", "lines"), FIRST, ids=[name for name, _, _ in FIRST])
def test_the_first_proposal_is_the_usual_way(name: str, remedy: str, lines: list[str]) -> None:
    """The likeliest way comes first, and a comment on a changed line stays."""
    _, first = next(proposals(_place(name), remedy))
    told = diff(_place(name).module, first.module, name)
    added = "\n".join(line[1:].strip() for line in told.splitlines() if line.startswith("+"))
    for line in lines:
        assert line in added
    compile(first.module.code, name, "exec")


@pytest.mark.parametrize("remedy", [r.name for r in with_advice(all_checks()) if has_patch(r.name)])
def test_every_proposal_is_python(remedy: str) -> None:
    """Whatever is proposed, on any module, can be run, changes something, and stays out of the imports."""
    for file in FILES:
        place = _place(file.stem)
        for _, proposal in proposals(place, remedy):
            text, before = proposal.module.code, place.module.code
            assert (text != before) is True
            compile(text, file.name, "exec")
            assert text.partition("class ")[0] == before.partition("class ")[0]


def test_the_patches_name_remedies_that_exist() -> None:
    """A patch for a remedy that was renamed would never be asked for."""
    known = {remedy.name for remedy in with_advice(all_checks())}
    found = [getattr(module, "PATCH", None) for module in vars(patches).values()]
    named = {remedy for patch in found if isinstance(patch, Patch) for remedy in patch.remedies}
    assert named
    assert named <= known


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_without_edits_stays_as_it_is(file: Path) -> None:
    """Not a byte changes by reading, and by an edit of nothing."""
    module = parse(file)
    assert module.bytes == file.read_bytes()
    assert edited(module).bytes == file.read_bytes()


def test_comments_and_depth_stay() -> None:
    """A comment stays before a statement that gets another before it; an argument keeps its neighbours."""
    module = cst.parse_module("def f(x):\n    # of x\n    y = g(x)  # g\n\n    return y\n")
    first = next(every(module, cst.SimpleStatementLine))
    value = next(every(module, cst.Call))
    changed = edited(module, {value: "h(x)"}, before={first: ["x = x + 1"]}, after={first: ["y = -y"]})
    wanted = "def f(x):\n    # of x\n    x = x + 1\n    y = h(x)  # g\n    y = -y\n\n    return y\n"
    assert changed.code == wanted


@pytest.mark.parametrize(
    ("imports", "name"),
    [
        ("import torch.nn.functional as F", "F"),
        ("from torch.nn import functional as G", "G"),
        ("from torch import nn", "nn.functional"),
        ("import torch", "torch.nn.functional"),
        ("import numpy", ""),
    ],
)
def test_functional_has_the_name_of_the_file(imports: str, name: str) -> None:
    """A patch writes no import, so it uses what there is."""
    assert functional(cst.parse_module(f"{imports}\nx = 1\n")) == name


def test_names_get_their_meaning_by_what_flows_into_them() -> None:
    """The distance to the codebook is neither z_q nor another form of the codebook."""
    lines = {line.target: line.meaning for line in _place("taming_estimator_cut").lines}
    assert lines["z_flattened"] == "z_e"
    assert lines["d"] == ""
    assert lines["min_encoding_indices"] == "indices"
    assert lines["z_q"] == "z_q"
    assert lines["loss"] == "loss"


def test_a_file_without_the_class_has_no_layer() -> None:
    """A training script is a place too: without a layer, and with its calls."""
    module = cst.parse_module("loss = task + 3 * vq_loss\nloss.backward()\n")
    place = place_in(module, [Written(path="vq", name="Quantizer")], {"codebook": "vq.codebook"})
    assert place.layer is None
    assert _texts(place, "lower-vq-weight") == ["loss = task + 0.1 * vq_loss\nloss.backward()\n"]
    assert _texts(place, "straight-through") == []


def test_a_warm_up_needs_a_loop_over_epochs() -> None:
    """Without an epoch there is nothing to count."""
    step = "    loss = task + 0.1 * vq_loss\n"
    loop = Place(module=cst.parse_module(f"for epoch in range(9):\n{step}"))
    assert _texts(loop, "warm-up") == [
        "for epoch in range(9):\n    loss = task + 0.1 * min(1.0, epoch / 10) * vq_loss\n"
    ]
    assert _texts(Place(module=cst.parse_module(f"if True:\n{step}")), "warm-up") == []


def test_an_optimizer_gets_a_group_for_the_codebook() -> None:
    """Weight decay stays on the rest."""
    text = "optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)\n"
    place = Place(module=cst.parse_module(text), in_model={"parameter": "model.vq.embed"})
    (changed,) = _texts(place, "exempt-codebook")
    assert '{"params": [net.vq.embed], "weight_decay": 0.0}' in changed
    assert "if p is not net.vq.embed]" in changed


def test_a_loader_shuffles() -> None:
    """The argument joins the others, also where there are several lines of them."""
    text = "loader = DataLoader(\n    data,\n    batch_size=16,\n)\n"
    (changed,) = _texts(Place(module=cst.parse_module(text)), "shuffle")
    assert changed == "loader = DataLoader(\n    data,\n    batch_size=16,\n    shuffle=True,\n)\n"


def test_a_file_that_is_no_python_is_named(tmp_path: Path) -> None:
    """The line stands in the message."""
    file = tmp_path / "model.py"
    file.write_text("x = 1\ndef f(:\n")
    with pytest.raises(UserError, match=r"model\.py:2: not a Python file"):
        parse(file)
    with pytest.raises(UserError, match="No such file"):
        parse(tmp_path / "none.py")


def _texts(place: Place, remedy: str) -> list[str]:
    return [proposal.module.code for _, proposal in proposals(place, remedy)]


def test_code_of_a_node_has_no_blanks_around() -> None:
    """A node's own comments are not part of it."""
    assert code(cst.parse_statement("x = 1  # one\n")).startswith("x = 1")


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        (
            ["loss = self.beta * F.mse_loss(z, z_q.detach())", "return z_q, loss"],
            "loss = self.beta * F.mse_loss(z, z_q.detach()) + F.mse_loss(z_q, z.detach())",
        ),
        (
            ["pull = F.mse_loss(z, z_q.detach())", "loss = self.beta * pull", "return z_q, loss"],
            "loss = self.beta * pull + F.mse_loss(z_q, z.detach())",
        ),
        (
            ["return z_q, self.beta * F.mse_loss(z, z_q.detach())"],
            "return z_q, (self.beta * F.mse_loss(z, z_q.detach()) + F.mse_loss(z_q, z.detach()))",
        ),
    ],
)
def test_a_codebook_loss_has_the_weight_one(lines: list[str], wanted: str) -> None:
    """The factor beta is that of the commitment alone, wherever it stands."""
    lines = ["idx = z.argmin(1)", "z_q = self.codebook[idx]", *lines]
    place = _layer("\n".join(f"        {line}" for line in lines))
    _, proposal = next(proposals(place, "train-codebook"))
    assert wanted in proposal.module.code


def test_branches_of_an_if_get_one_estimator() -> None:
    """It stands before the return that both lead to."""
    body = """
        idx = z.argmin(1)
        if self.training:
            z_q = self.codebook[idx]
        else:
            z_q = self.codebook[idx]
        return z_q"""
    estimator = "        z_q = z + (z_q - z).detach()\n        return z_q"
    assert any(estimator in p.module.code for _, p in proposals(_layer(body), "straight-through"))


def test_one_line_of_several_statements_is_split() -> None:
    """The estimator stands between the code and the return."""
    place = _layer("        idx = z.argmin(1); z_q = self.codebook[idx]; return z_q")
    estimator = "        z_q = z + (z_q - z).detach()\n        return z_q"
    assert any(estimator in p.module.code for _, p in proposals(place, "straight-through"))


def test_other_lines_of_several_statements_stay_as_they_are() -> None:
    """A patch is as small as it can be: whatever was split for it, and is the same, is joined again."""
    body = """
        self.calls += 1; shape = z.shape  # both
        z = z.reshape(-1, 8); idx = z.argmin(1)
        z_q = self.codebook[idx]; self.last = "a; b"
        return z_q"""
    for _, proposal in proposals(_layer(body), "straight-through"):
        assert "        self.calls += 1; shape = z.shape  # both\n" in proposal.module.code
        assert "        z = z.reshape(-1, 8); idx = z.argmin(1)\n" in proposal.module.code
        assert 'self.last = "a; b"\n' in proposal.module.code


def test_a_line_is_joined_again_where_it_stood_and_nowhere_else() -> None:
    """A form feed begins no line for git, and two lines of the author's own stay two."""
    body = """
        page = "\f"; self.page = page
        idx = z.argmin(1); z_q = self.codebook[idx]
        self.a = 1
        self.b = 2
        if self.a: self.c = 1
        self.a = 1; self.b = 2
        return z_q"""
    found = [p.module.code for _, p in proposals(_layer(body), "straight-through")]
    assert found
    for text in found:
        assert '        page = "\f"; self.page = page\n' in text
        assert "        self.a = 1\n        self.b = 2\n        if self.a: self.c = 1\n" in text


def test_the_class_is_the_one_that_computes() -> None:
    """Of several of one name the one at the line; of a class and its base the one that chooses the codes."""
    text = "class A:\n    def forward(self, z):\n        return z\n\n\n"
    text += "class A:\n    def forward(self, z):\n        return z.argmin(1)\n\n\nclass B(A):\n    pass\n"
    module = cst.parse_module(text)
    first, second, below = (node for node in module.body if isinstance(node, cst.ClassDef))
    for line, wanted in ((2, first), (7, second)):
        assert place_in(module, [Written(path="vq", name="A", line=line)], {}).layer is wanted
    both = [Written(path="vq", name="B"), Written(path="vq", name="A", line=7)]
    assert place_in(module, both, {}).layer is second
    assert place_in(module, both[:1], {}).layer is below


def _layer(body: str) -> Place:
    head = "import torch.nn.functional as F\n\n\nclass Quantizer:\n    def forward(self, z):\n"
    module = cst.parse_module(f"{head}{body.lstrip(chr(10))}\n")
    return place_in(module, [Written(path="vq", name="Quantizer")], {"codebook": "vq.codebook"})

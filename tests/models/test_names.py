"""A file's tensors find their places in a model under whatever prefixes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vqdoctor.layouts import StateDict, state_dicts
from vqdoctor.models.names import align


class Stored:
    def __init__(self, tensor: torch.Tensor) -> None:
        self.shape = tuple(tensor.shape)
        self.dtype = str(tensor.dtype).removeprefix("torch.")


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(3, 4)
        self.vq = nn.Embedding(5, 4)
        self.tokens = nn.Embedding(5, 4)


class Outer(nn.Module):
    """A wrapper that gives its part a name of its own."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.add_module(name, Inner())
        self.head = nn.Linear(4, 2)


def stored(names: list[str]) -> StateDict:
    (state,) = state_dicts({name: Stored(torch.zeros(5, 4)) for name in names})
    return state


INNER = list(Inner().state_dict())


@pytest.mark.parametrize(
    "prefix", ["", "module.", "_orig_mod.", "state_dict.model.", "state_dict.tokenizer.", "net.autoencoder."]
)
@pytest.mark.parametrize(
    "model",
    [Inner(), Outer("model"), Outer("tokenizer"), nn.DataParallel(Inner())],
    ids=lambda m: type(m).__name__,
)
def test_every_prefix_in_every_model(prefix: str, model: nn.Module) -> None:
    state = stored([prefix + name for name in INNER])
    own = list(model.state_dict())
    (codebook,) = (name for name in state.entries if name.endswith("vq.weight"))
    mapped = align(own, state, codebook)
    expected = {name: raw for name in own for raw in state.raw.values() if ends_alike(name, raw)}
    assert {ours: state.raw[theirs] for ours, theirs in mapped.items()} == expected
    assert len(expected) == len(INNER)


def ends_alike(name: str, raw: str) -> bool:
    return name.split(".")[-2:] == raw.split(".")[-2:]


def test_a_wrapper_in_the_middle_is_seen_through() -> None:
    state = stored(["encoder._orig_mod.weight", "encoder._orig_mod.bias", "vq.weight", "tokens.weight"])
    mapped = align(INNER, state, "vq.weight")
    assert set(mapped) == set(INNER)


def test_nothing_in_common_is_nothing() -> None:
    assert align(["a.b", "c.d"], stored(["x.y", "z.w"]), "x.y") == {}


def test_a_lone_common_word_is_no_reason() -> None:
    mapped = align(["first.weight", "second.weight"], stored(["vq.codebook.weight"]), "vq.codebook.weight")
    assert mapped == {}

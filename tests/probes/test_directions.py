"""In how many directions codes and z_e vary: of a file, of a dump, and of a model's own vectors."""

from __future__ import annotations

import numpy as np
import torch
from live_models import live, trained
from torch import nn
from torch.nn import functional
from vector_quantize_pytorch import VectorQuantize

from vqdoctor.core.evidence import Directions, Unavailable
from vqdoctor.models.task import Losses
from vqdoctor.probes.dump import DumpContext
from vqdoctor.probes.dump import directions as of_dump
from vqdoctor.probes.file import directions as of_file
from vqdoctor.probes.model import directions as of_model

RNG = np.random.default_rng(0)
CODES = np.zeros((40, 12), dtype=np.float32)
CODES[:30, :3] = RNG.normal(size=(30, 3))  # in use
CODES[30:] = RNG.normal(size=(10, 12))  # never chosen
USED = RNG.integers(0, 30, 900)
Z_E = CODES[USED] + 1e-3 * RNG.normal(size=(900, 12)).astype(np.float32)


def test_codes_that_the_counts_say_are_unused_have_no_say(tiny, examine, ask):
    model = tiny()
    for codes, counts, expected in (
        (CODES[:32, :6], np.bincount(USED, minlength=32), 3),
        (CODES[:32, :6], 1.0 + np.arange(32), 5),
    ):
        with torch.no_grad():
            model.vq.embedding.copy_(torch.from_numpy(codes))
            model.vq.ema_cluster_size.copy_(torch.from_numpy(counts))
            model.vq.ema_embedding_sum.copy_(model.vq.embedding * model.vq.ema_cluster_size[:, None])
        found = ask(of_file, examine({"model": model.state_dict(), "config": {"decay": 0.5}, "step": 99}))
        assert isinstance(found, Directions)
        assert (found.code_directions, found.vector_directions) == (expected, None)


def test_without_counts_no_file_tells_which_codes_are_in_use(tiny, examine, ask):
    state = {k: v for k, v in tiny().state_dict().items() if "ema" not in k}
    assert isinstance(ask(of_file, examine({"model": state})), Unavailable)


def test_dumped_vectors_and_the_codes_that_they_choose(make_view, ask):
    found = ask(of_dump, DumpContext(views=(make_view(CODES),), arrays={"z_e": Z_E}))
    assert (found.code_directions, found.vector_directions, found.vectors) == (3, 3, 900)
    assert (found.sample_size, found.dim) == (len(set(USED)), 12)
    named = DumpContext(views=(make_view(CODES),), arrays={"z_e": Z_E, "indices": np.arange(900) % 40})
    assert ask(of_dump, named).code_directions > 3


class Windows(nn.Module):
    """A convolution of width 3 over 5 channels, and codes of 16 dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Conv1d(5, 16, 3, padding=1)
        self.vq = VectorQuantize(16, 32, kmeans_init=True, channel_last=False)
        self.decoder = nn.Conv1d(16, 5, 3, padding=1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x -= 0.5  # in place
        z_q, _, loss = self.vq(self.encoder(x))
        return self.decoder(z_q), loss.sum()


class WindowTask:
    vq_weight = 0.25

    def __init__(self, tokens: bool = False) -> None:
        self.x = torch.rand(80, 5, 10, generator=torch.Generator().manual_seed(0))

    def model(self) -> nn.Module:
        torch.manual_seed(0)
        return Windows()

    def batches(self, split: str):  # type: ignore[no-untyped-def]
        return iter(self.x.split(20))

    def losses(self, model: nn.Module, batch: torch.Tensor) -> Losses:
        made, vq = model(batch.clone())
        return Losses(task=functional.mse_loss(made, batch), vq=vq)


class EncodedOutside(WindowTask):
    """The task calls the parts of its model, and never the model."""

    def losses(self, model: nn.Module, batch: torch.Tensor) -> Losses:
        z_q, _, loss = model.vq(model.encoder(batch))
        return Losses(task=functional.mse_loss(model.decoder(z_q), batch), vq=loss.sum())


def test_what_one_vector_sees_of_the_input_is_its_window_alone() -> None:
    task = WindowTask()
    evidence, _ = live(trained(task), task, (of_model,))
    assert evidence["directions"].input_directions == 15  # 3 of 10 places, 5 channels
    assert evidence["directions"].vector_directions == 15
    assert evidence["directions"].vectors == 3 * 80 * 10


def test_an_input_that_is_not_traced_is_not_guessed() -> None:
    task = EncodedOutside()
    evidence, _ = live(trained(task), task, (of_model,))
    assert evidence["directions"].input_directions is None
    assert evidence["directions"].vector_directions == 15

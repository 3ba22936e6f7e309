"""The model around a quantizer, its task, and its training."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fault_bench import (
    diffusers_vq,
    home_made,
    lucidrains,
    noise,
    rosinality,
    stack,
    taming,
    transformers_vq,
    zalando,
)
from fault_bench.data import load
from fault_bench.quantizer import Implementation, Table, nearest
from fault_bench.setup import Setup
from vqdoctor.models.task import Losses

IMPLEMENTATIONS: dict[str, Implementation] = {
    implementation.name: implementation
    for implementation in (
        lucidrains.EUCLIDEAN,
        lucidrains.COSINE,
        lucidrains.RESIDUAL,
        taming.IMPLEMENTATION,
        rosinality.IMPLEMENTATION,
        diffusers_vq.IMPLEMENTATION,
        stack.IMPLEMENTATION,
        zalando.IMPLEMENTATION,
        *home_made.IMPLEMENTATIONS,
        lucidrains.BY_GRADIENT,
        lucidrains.GROUPED,
        lucidrains.LINEAR,
        lucidrains.BINARY,
        lucidrains.SCALAR,
        transformers_vq.DAC,
        transformers_vq.CHAMELEON,
        transformers_vq.MIMI,
        transformers_vq.GUMBEL,
        noise.IMPLEMENTATION,
    )
}
WIDTH = 32
CLASSES = 10
EPOCH = 40
"""Steps after which dead codes are revived."""
REVIVED_UNDER = 0.1


class Host(nn.Module):
    """Encoder, VQ layer, decoder and, where the data has labels, a classifier."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        data = load(setup.data)
        channels, flat = data.train.shape[1], data.axes == 1
        self.setup, self.implementation = setup, IMPLEMENTATIONS[setup.implementation]
        conv: Any = nn.Conv1d if flat else nn.Conv2d
        narrow = conv(WIDTH, WIDTH, 3, padding=1) if flat else conv(WIDTH, WIDTH, 4, stride=2, padding=1)
        last = [conv(WIDTH, setup.dim, 1)]
        if setup.directions:
            last = [conv(WIDTH, setup.directions, 1), conv(setup.directions, setup.dim, 1)]
        self.encoder = nn.Sequential(conv(channels, WIDTH, 3, padding=1), nn.ReLU(), narrow, nn.ReLU(), *last)
        norm: Any = nn.BatchNorm1d if flat else nn.BatchNorm2d
        self.norm = norm(setup.dim, momentum=setup.momentum) if setup.normalise else nn.Identity()
        self.vq = self.implementation.build(setup)
        wide = (
            conv(WIDTH, channels, 3, padding=1)
            if flat
            else nn.ConvTranspose2d(WIDTH, channels, 4, stride=2, padding=1)
        )
        self.decoder = nn.Sequential(conv(setup.dim, WIDTH, 1), nn.ReLU(), wide)
        self.features = nn.Sequential(conv(setup.dim, WIDTH, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(WIDTH, CLASSES)
        if not setup.alive:  # the bias that a too large step left behind
            with torch.no_grad():
                self.encoder[0].bias.fill_(-100.0)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Return z_e [B, D, ...]."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.setup.encoder_graph):
            z = self.norm(self.encoder(x))
        if self.setup.position:
            z = z + self.setup.position * _places(z.shape)
        if self.training and self.setup.dropout:
            z = functional.dropout(z, self.setup.dropout)
        if self.training and self.setup.noise:
            z = z + self.setup.noise * torch.randn_like(z)
        z = functional.normalize(z, dim=1) if self.setup.sphere == "both" else z
        return self.setup.spread * z + self.setup.offset

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        z = self.encode(x)
        cut = z if self.setup.permuted else _strips(z)
        z_q, loss = self.implementation.quantize(self.vq, cut)
        z_q = z_q if self.setup.permuted else _unstrips(z_q)
        if not self.setup.attached:
            z_q = z_q.detach()
        decoded = z_q if self.setup.decodes_codes else z
        if not self.setup.finite:
            # the other branch's gradient is NaN × 0
            decoded = torch.where(decoded > 0, decoded.sqrt(), 0.0)
        if not self.setup.averaged:
            loss = loss * self.setup.dim
        return {
            "recon": self.decoder(decoded),
            "logits": self.head(self.features(decoded).flatten(2).mean(2)),
            "vq_loss": loss,
        }


def _places(shape: torch.Size) -> torch.Tensor:
    """Return an embedding of the positions, the same for every model, [1, D, ...]."""
    return torch.randn(1, *shape[1:], generator=torch.Generator().manual_seed(0))


def _strips(z: torch.Tensor) -> torch.Tensor:
    """Return [B, D, ...] whose vectors are strips of the memory of z."""
    return z.flatten(2).reshape(len(z), -1, z.shape[1]).transpose(1, 2).reshape(z.shape)


def _unstrips(z: torch.Tensor) -> torch.Tensor:
    """Undo `_strips`."""
    return z.flatten(2).transpose(1, 2).reshape(z.shape)


class BenchTask:
    """The task of a training, as its user would write it down."""

    def __init__(self, setup: Setup) -> None:
        self.setup, self.data = setup, load(setup.data)
        self.has_loss = IMPLEMENTATIONS[setup.implementation].has_loss
        self.vq_weight = setup.vq_weight if self.has_loss else None
        self.labels = dict(self.data.labels)
        if not setup.paired:  # samples were shuffled, and their labels in another order
            generator = torch.Generator().manual_seed(setup.seed)
            self.labels = {s: y[torch.randperm(len(y), generator=generator)] for s, y in self.labels.items()}

    def model(self) -> Host:
        return Host(self.setup)

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        # the codebook's group has its own decay; without any there is one group, as in most scripts
        books = [p for name, p in model.named_parameters() if name.startswith("vq.")]
        if self.setup.codebook_decay and books:
            others = [p for name, p in model.named_parameters() if not name.startswith("vq.")]
            groups = [{"params": others}, {"params": books, "weight_decay": self.setup.codebook_decay}]
            return torch.optim.Adam(groups, lr=self.setup.learning_rate)
        return torch.optim.Adam(model.parameters(), lr=self.setup.learning_rate)

    def batches(self, split: str) -> Iterator[Any]:
        samples, labels = self.samples(split), self.labels.get(split)
        order = torch.arange(len(samples))
        if split == "train" and not self.setup.shuffled:
            order = self.data.order
        for rows in order.split(self.setup.batch):
            yield samples[rows], None if labels is None else labels[rows]

    def samples(self, split: str) -> torch.Tensor:
        """Return the samples of a split as the model gets them."""
        setup = self.setup
        x = self.data.train if split == "train" else self.data.val * setup.val_scale
        padded = round(x.shape[-1] * setup.padding / (1 - setup.padding))
        return setup.input_scale * functional.pad(x, (0, padded))

    def losses(self, model: nn.Module, batch: Any) -> Losses:
        x, y = batch
        with torch.autocast("cpu", torch.bfloat16, enabled=not self.setup.lookup_in_full):
            output = {name: value.float() for name, value in model(x).items()}
        task = functional.mse_loss(output["recon"], x)
        if y is not None:
            task = 3.0 * task + functional.cross_entropy(output["logits"], y)
        return Losses(
            task=task,
            vq=output["vq_loss"] if self.setup.vq_in_loss and self.has_loss else None,
            logits=output["logits"] if y is not None else None,
            labels=y,
        )


def train(setup: Setup) -> dict[str, Any]:
    """Train, and return what the user's script saves."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(setup.seed)
        random.seed(setup.seed)
        return _Training(setup).run()


class _Training:
    def __init__(self, setup: Setup) -> None:
        self.setup, self.task = setup, BenchTask(setup)
        self.model = self.task.model()
        self.optimizer = self.task.optimizer(self.model)
        self.implementation = self.model.implementation
        self.generator = torch.Generator().manual_seed(setup.seed)

    def run(self) -> dict[str, Any]:
        setup = self.setup
        self.model.train()
        if setup.steps and setup.data_init and (not self.implementation.starts_itself or setup.distinct):
            self._place()
        average = None
        if setup.averaged_weights:
            how = get_ema_multi_avg_fn(setup.averaged_weights)
            average = AveragedModel(self.model, multi_avg_fn=how, use_buffers=True)
        for number, batch in zip(range(1, setup.steps + 1), self._endless(), strict=False):
            self._step(batch)
            if average is not None:
                average.update_parameters(self.model)
            due = number % EPOCH == 0 and number < setup.steps
            if due and setup.revival and not self.implementation.starts_itself:
                self._revive()
        if not setup.sums_written:
            self._rewrite()
        self.model.eval()
        state = (self.model if average is None else average.module).state_dict()
        if not setup.flag_saved:
            state = {k: v for k, v in state.items() if not k.endswith(self.implementation.volatile or "\0")}
        epochs = -(-setup.steps * setup.batch // len(self.task.data.train))
        return {
            "model": state,
            **({"optimizer": self.optimizer.state_dict()} if setup.optimizer_saved else {}),
            "config": setup.config(),
            "epoch": epochs,
            "global_step": setup.steps,
            **self._scores(),
        }

    @torch.no_grad()
    def _scores(self) -> dict[str, float]:
        """Return the accuracy that a script with labels prints and saves."""
        labels = self.task.labels.get("val")
        if labels is None:
            return {}
        logits = self.model(self.task.samples("val"))["logits"]
        return {"val_acc": float((logits.argmax(1) == labels).float().mean())}

    def _endless(self) -> Iterator[Any]:
        while True:
            batches = list(self.task.batches("train"))
            if not self.setup.shuffled:
                yield from batches
                continue
            samples, labels = self.task.samples("train"), self.task.labels.get("train")
            order = torch.randperm(len(samples), generator=self.generator)
            for rows in order.split(self.setup.batch):
                yield samples[rows], None if labels is None else labels[rows]

    def _step(self, batch: Any) -> None:
        losses = self.task.losses(self.model, batch)
        loss = losses.task if losses.vq is None else losses.task + self.setup.vq_weight * losses.vq
        self.optimizer.zero_grad()
        loss.backward()
        # a script in mixed precision skips the steps that are not finite, and goes on
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        if all(bool(g.isfinite().all()) for g in gradients):
            self.optimizer.step()

    @torch.no_grad()
    def _vectors(self) -> torch.Tensor:
        """Return z_e of the training samples, [N, D], without moving a norm layer's statistics."""
        kept = [m.momentum for m in self.model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        norms = [m for m in self.model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        for norm in norms:
            norm.momentum = 0.0
        z = self.model.encode(self.task.samples("train"))
        for norm, momentum in zip(norms, kept, strict=True):
            norm.momentum = momentum
        z = z if self.setup.permuted else _strips(z)
        return z.flatten(2).transpose(1, 2).reshape(-1, z.shape[1])

    @torch.no_grad()
    def _place(self) -> None:
        """Put every codebook where the data is, code by code on a vector of its own."""
        left = self._vectors()
        codes, distinct = self.setup.codes, self.setup.distinct
        count = self.setup.batch * len(left) / len(self.task.data.train) / codes
        for table in self.implementation.tables(self.model.vq):
            places = self._drawn(left, codes)
            if distinct:
                places = places[:distinct][torch.randint(distinct, (codes,), generator=self.generator)]
            table.write(places, count)
            left = left - table.codes[nearest(left, table.codes)]

    def _drawn(self, vectors: torch.Tensor, amount: int) -> torch.Tensor:
        return vectors[torch.randperm(len(vectors), generator=self.generator)[:amount]]

    @torch.no_grad()
    def _revive(self) -> None:
        left = self._vectors()
        for table in self.implementation.tables(self.model.vq):
            self._move_dead(table, left)
            left = left - table.codes[nearest(left, table.codes)]

    def _move_dead(self, table: Table, vectors: torch.Tensor) -> None:
        usage = torch.bincount(nearest(vectors, table.codes), minlength=self.setup.codes)
        dead = (usage * len(usage) < REVIVED_UNDER * usage.sum()).nonzero().flatten()
        places = self._drawn(vectors, len(dead))
        table.codes[dead[: len(places)]] = places
        if table.counts is not None and table.sums is not None:
            table.counts[dead] = table.counts.mean()
            table.sums[dead] = table.codes[dead] * table.counts[dead, None]

    @torch.no_grad()
    def _rewrite(self) -> None:
        """Place the codes anew after the training, and write them alone."""
        vectors = self._vectors()
        for table in self.implementation.tables(self.model.vq):
            table.write(self._drawn(vectors, self.setup.codes), 1.0, whole=False)


def save(setup: Setup, path: Path) -> Path:
    """Train and save, unless the file is there already."""
    if not path.exists():
        partial = path.with_suffix(".partial")
        torch.save(train(setup), partial)
        partial.replace(path)
    return path

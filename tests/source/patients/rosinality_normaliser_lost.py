import torch
import torch.nn.functional as F
from digits_host import CODES, DIM, Digits, Encoder, Head
from torch import nn


class Quantizer(nn.Module):
    """The layer of rosinality's vq-vae-2."""

    def __init__(self, dim=DIM, n_embed=CODES, decay=0.95, eps=1e-5):
        super().__init__()
        self.dim = dim
        self.n_embed = n_embed
        self.decay = decay
        self.eps = eps

        embed = torch.randn(dim, n_embed)
        self.register_buffer("embed", embed)
        self.register_buffer("cluster_size", torch.zeros(n_embed))
        self.register_buffer("embed_avg", embed.clone())

    def forward(self, input):
        input = input.permute(0, 2, 3, 1)
        flatten = input.reshape(-1, self.dim)
        dist = (
            flatten.pow(2).sum(1, keepdim=True)
            - 2 * flatten @ self.embed
            + self.embed.pow(2).sum(0, keepdim=True)
        )
        _, embed_ind = (-dist).max(1)
        embed_onehot = F.one_hot(embed_ind, self.n_embed).type(flatten.dtype)
        embed_ind = embed_ind.view(*input.shape[:-1])
        quantize = F.embedding(embed_ind, self.embed.transpose(0, 1))

        if self.training:
            with torch.no_grad():
                self.cluster_size.mul_(self.decay).add_(embed_onehot.sum(0), alpha=1 - self.decay)
                self.embed_avg.mul_(self.decay).add_(
                    flatten.transpose(0, 1) @ embed_onehot, alpha=1 - self.decay
                )
                n = self.cluster_size.sum()
                cluster_size = (self.cluster_size + self.eps) / (n + self.n_embed * self.eps)
                self.embed.copy_(self.embed_avg / cluster_size.unsqueeze(0))  # normalised

        diff = 0.25 * (quantize.detach() - input).pow(2).mean()
        quantize = input + (quantize - input).detach()
        return quantize.permute(0, 3, 1, 2), diff, embed_ind


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = Encoder()
        self.vq = Quantizer()
        self.head = Head()

    def forward(self, x):
        z_q, vq_loss, _ = self.vq(self.encoder(x))
        return self.head(z_q), vq_loss


class Task(Digits):
    build = Net


task = Task()

import torch
import torch.nn.functional as F
from digits_host import CODES, DIM, Digits, Encoder, Head
from torch import nn


class Quantizer(nn.Module):
    """The layer of VideoGPT, with a revival of its own."""

    def __init__(self, n_codes=CODES, embedding_dim=DIM):
        super().__init__()
        self.register_buffer("embeddings", 4 * torch.randn(n_codes, embedding_dim))
        self.register_buffer("N", torch.zeros(n_codes))
        self.register_buffer("z_avg", self.embeddings.data.clone())
        self.n_codes = n_codes

    def forward(self, z):
        flat_inputs = z.movedim(1, -1).flatten(0, 2)
        distances = (
            (flat_inputs**2).sum(dim=1, keepdim=True)
            - 2 * flat_inputs @ self.embeddings.t()
            + (self.embeddings.t() ** 2).sum(dim=0, keepdim=True)
        )
        encoding_indices = torch.argmin(distances, dim=1)
        encode_onehot = F.one_hot(encoding_indices, self.n_codes).type_as(flat_inputs)
        encoding_indices = encoding_indices.view(z.shape[0], *z.shape[2:])
        embeddings = F.embedding(encoding_indices, self.embeddings).movedim(-1, 1)
        commitment_loss = 0.25 * F.mse_loss(z, embeddings.detach())

        # EMA codebook update
        if self.training:
            # codes that nobody uses move to the data
            dead = self.N < 1
            k_rand = flat_inputs.detach()[torch.randperm(len(flat_inputs))[: self.n_codes]]
            self.embeddings.data[dead] = k_rand[dead]

            n_total = encode_onehot.sum(dim=0)
            encode_sum = flat_inputs.detach().t() @ encode_onehot
            self.N.data.mul_(0.95).add_(n_total, alpha=0.05)
            self.z_avg.data.mul_(0.95).add_(encode_sum.t(), alpha=0.05)

            n = self.N.sum()
            weights = (self.N + 1e-7) / (n + self.n_codes * 1e-7) * n
            encode_normalized = self.z_avg / weights.unsqueeze(1)
            self.embeddings.data.copy_(encode_normalized)

        embeddings_st = z + (embeddings - z).detach()
        return embeddings_st, commitment_loss, encoding_indices


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

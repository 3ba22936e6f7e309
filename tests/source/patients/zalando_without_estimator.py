import torch
import torch.nn.functional as F
from digits_host import CODES, DIM, Digits, Encoder, Head
from torch import nn


class Quantizer(nn.Module):
    """The layer of zalando's notebook."""

    def __init__(self, num_embeddings=CODES, embedding_dim=DIM, commitment_cost=0.25):
        super().__init__()
        self._embedding = nn.Embedding(num_embeddings, embedding_dim)
        self._embedding.weight.data.uniform_(-1, 1)  # as wide as z_e
        self._commitment_cost = commitment_cost

    def forward(self, inputs):
        # B C H W -> B H W C
        inputs = inputs.permute(0, 2, 3, 1).contiguous()
        flat = inputs.view(-1, inputs.shape[-1])

        # the nearest code
        distances = torch.cdist(flat, self._embedding.weight)
        idx = distances.argmin(1)
        quantized = self._embedding(idx).view(inputs.shape)

        # Loss
        e_latent_loss = F.mse_loss(quantized.detach(), inputs)
        q_latent_loss = F.mse_loss(quantized, inputs.detach())
        loss = q_latent_loss + self._commitment_cost * e_latent_loss

        return quantized.permute(0, 3, 1, 2).contiguous(), loss, idx


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

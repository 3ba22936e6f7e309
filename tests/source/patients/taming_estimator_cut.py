import torch
from digits_host import CODES, DIM, Digits, Encoder, Head
from torch import nn


class Quantizer(nn.Module):
    """The layer of taming-transformers."""

    def __init__(self, n_e=CODES, e_dim=DIM, beta=0.25):
        super().__init__()
        self.beta = beta
        self.embedding = nn.Embedding(n_e, e_dim)
        self.embedding.weight.data.uniform_(-1.0, 1.0)

    def forward(self, z):
        z = z.permute(0, 2, 3, 1).contiguous()
        z_flattened = z.view(-1, z.shape[-1])
        d = (
            torch.sum(z_flattened**2, dim=1, keepdim=True)
            + torch.sum(self.embedding.weight**2, dim=1)
            - 2 * torch.matmul(z_flattened, self.embedding.weight.t())
        )
        min_encoding_indices = torch.argmin(d, dim=1)
        z_q = self.embedding(min_encoding_indices).view(z.shape)
        loss = torch.mean((z_q.detach() - z) ** 2) + self.beta * torch.mean((z_q - z.detach()) ** 2)
        # preserve gradients
        z_q = z.detach() + (z_q - z).detach()
        return z_q.permute(0, 3, 1, 2).contiguous(), loss, min_encoding_indices


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

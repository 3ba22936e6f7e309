import torch
import torch.nn.functional as F
from digits_host import CODES, DIM, Digits, Encoder, Head
from torch import nn


class Quantizer(nn.Module):
    def __init__(self, codes=CODES, dim=DIM):
        super().__init__()
        self.codebook = nn.Parameter(torch.rand(codes, dim) * 2 - 1)

    def forward(self, z):
        flat = z.movedim(1, -1)
        indices = torch.cdist(flat.flatten(0, 2), self.codebook).argmin(-1)
        z_q = self.codebook[indices].view_as(flat)
        loss = F.mse_loss(flat, z_q.detach())
        z_q = flat + (z_q - flat).detach()
        return z_q.movedim(-1, 1), loss, indices


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

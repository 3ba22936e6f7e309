from digits_host import CODES, DIM, Digits, Encoder, Head
from torch import nn
from vector_quantize_pytorch import VectorQuantize


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = Encoder()
        self.vq = VectorQuantize(
            dim=DIM,
            codebook_size=CODES,  # 64
            accept_image_fmap=True,
            threshold_ema_dead_code=0,
            decay=0.9999,
        )
        self.head = Head()

    def forward(self, x):
        z_q, _, vq_loss = self.vq(self.encoder(x))
        return self.head(z_q), vq_loss.sum()


class Task(Digits):
    build = Net


task = Task()

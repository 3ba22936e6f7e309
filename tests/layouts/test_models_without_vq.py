"""Models of the transformers library, built without memory: no VQ layer is seen where there is none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

transformers = pytest.importorskip("transformers")

from vqdoctor.layouts import find_quantizers  # noqa: E402

WITHOUT = (
    "bert", "gpt2", "t5", "roberta", "distilbert", "albert", "electra", "bart", "mbart", "pegasus",
    "opt", "llama", "mistral", "qwen2", "gemma", "phi", "falcon", "bloom", "gpt_neox", "vit", "deit",
    "swin", "convnext", "resnet", "clip", "blip", "wav2vec2", "hubert", "whisper", "speecht5",
    "segformer", "yolos", "beit", "dinov2", "deberta-v2", "mamba", "rwkv", "longformer", "big_bird",
    "xlnet", "vilt", "layoutlm", "tapas", "vits", "mobilenet_v2", "regnet",
)  # fmt: skip
LAYERS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers", "encoder_layers", "decoder_layers")


class Shape:
    """A tensor of noise, which takes no memory until it is read."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.shape, self.dtype = tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")

    def read(self) -> NDArray[np.float32]:
        return np.random.default_rng(0).normal(size=self.shape).astype(np.float32)


def keys_of(name: str) -> dict[str, Shape]:
    config = transformers.CONFIG_MAPPING[name]()
    for attribute in LAYERS:
        if isinstance(getattr(config, attribute, None), int) and attribute not in config.attribute_map:
            setattr(config, attribute, 2)
    with torch.device("meta"):
        model = transformers.AutoModel.from_config(config)
    return {key: Shape(tensor) for key, tensor in model.state_dict().items()}


def test_no_layer_in_models_without_vq() -> None:
    assert len(WITHOUT) >= 30
    found = {name: find_quantizers(keys_of(name)) for name in WITHOUT}
    assert {name: [v.name for v in f.views] for name, f in found.items() if f.views or f.notes} == {}

"""A finding has one identity: in a bare file, in the same file with a model and data, and in a live model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from vector_quantize_pytorch import ResidualVQ

import vqdoctor
from vqdoctor.render import RenderOptions, renderer_of


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(8, 16), nn.Linear(16, 8)
        self.rvq = ResidualVQ(dim=16, num_quantizers=2, codebook_size=32)
        for layer in self.rvq.layers:  # copies, which a bare file shows as well
            layer._codebook.embed.copy_(layer._codebook.embed[:, :1].clone())

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z_q, _, loss = self.rvq(self.encoder(x))
        return self.decoder(z_q), loss.sum()


class Wrapped(nn.Module):
    """As Lightning, DDP and torch.compile put a model into another."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.inner_name = name
        setattr(self, name, Net())

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found: tuple[torch.Tensor, torch.Tensor] = getattr(self, self.inner_name)(x)
        return found


def hashes(report: vqdoctor.Report, format: str) -> set[str]:
    told = json.loads(renderer_of(format).render(report, RenderOptions()))
    if format == "gitlab":
        return {issue["fingerprint"] for issue in told if issue["check_name"] == "VQ503"}
    results = [result for result in told["runs"][0]["results"] if result["ruleId"] == "VQ503"]
    return {result["partialFingerprints"]["primaryLocationLineHash"] for result in results}


@pytest.mark.parametrize("wrapper", ["", "model"])
def test_a_finding_keeps_its_fingerprint(wrapper: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Wrapped(wrapper) if wrapper else Net()
    path, data = tmp_path / "model.pt", {"x": torch.randn(8, 10, 8)}
    torch.save({"state_dict": model.state_dict()}, path)
    bare, whole = vqdoctor.examine(path), vqdoctor.examine(path, data, model=model)
    live = vqdoctor.examine(model, data)
    expected = {f"VQ503:rvq.layers.{level}" for level in range(2)}
    for report in (bare, whole, live):
        assert {f.fingerprint for f in report.findings if f.code == "VQ503"} == expected
    for format in ("sarif", "gitlab"):
        assert len(hashes(bare, format)) == 2
        assert hashes(bare, format) == hashes(whole, format)
    assert hashes(bare, "sarif") == hashes(live, "sarif")

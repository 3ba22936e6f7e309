"""Figures of a cured layer and of its model, as a retraining measures them."""

from __future__ import annotations

from vqdoctor.core.retraining import Figures, LayerFigures

LAYER = LayerFigures(
    num_codes=256,
    vectors=6352,
    used=250,
    active=240,
    expected_active=256.0,
    perplexity=200.0,
    quantiles=(1.0,),
)
FIGURES = Figures(loss=0.2, samples=397, accuracy=0.96, ece=0.02, layers={"vq": LAYER})

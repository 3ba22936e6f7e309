"""What every kind of evidence must bring with it, whoever adds it."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import vqdoctor.core.evidence as package
from vqdoctor.core.codec import decode, encode
from vqdoctor.core.evidence import Evidence

for module in pkgutil.iter_modules(package.__path__):
    importlib.import_module(f"{package.__name__}.{module.name}")
KINDS = dict(sorted(Evidence.registry.items()))
each_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


@each_kind
def test_it_is_exported(kind: type[Evidence]) -> None:
    assert getattr(package, kind.__name__, None) is kind


@each_kind
def test_a_healthy_specimen_stands_beside_the_class(kind: type[Evidence]) -> None:
    assert "HEALTHY" in vars(kind), f"{kind.__module__} needs {kind.__name__}.HEALTHY = {kind.__name__}(…)"
    assert type(kind.HEALTHY) is kind
    assert kind.healthy() == kind.HEALTHY
    assert kind.healthy(sample_size=3).sample_size == 3


@each_kind
def test_it_survives_a_report(kind: type[Evidence]) -> None:
    assert decode(Evidence, encode(kind.healthy()), "evidence") == kind.healthy()

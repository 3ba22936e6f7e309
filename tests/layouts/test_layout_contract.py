"""What every layout must keep to; a new one is tested here without a new line."""

from __future__ import annotations

import re
import sys
from types import ModuleType

import pytest

from vqdoctor.layouts import families, find_quantizers, state_dicts
from vqdoctor.layouts.families import all_layouts
from vqdoctor.layouts.layout import Layout, Specificity

LAYOUTS = all_layouts()
each_layout = pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)


def module_of(layout: Layout) -> ModuleType:
    """The file that is named after the layout: it must define it."""
    module = sys.modules[f"{families.__name__}.{layout.name.replace('-', '_')}"]
    assert module.LAYOUT is layout
    return module


def test_the_issues_families_are_there():
    assert {layout.name for layout in LAYOUTS} >= {
        "reference", "vector-quantize-pytorch", "encodec", "hf-encodec", "zalando-ema", "rosinality",
        "taming-ema", "embedding", "ema-guess", "path-guess", "mimi", "dac", "simvq", "simvq-embedding",
        "vqgan-lc", "optvq", "wav2vec2", "vq-wav2vec", "gumbel-quantize", "nsvq", "random-projection",
    }  # fmt: skip


def test_names_differ_and_the_pickiest_layouts_come_first():
    assert len({layout.name for layout in LAYOUTS}) == len(LAYOUTS)
    assert [layout.specificity for layout in LAYOUTS] == sorted(
        (x.specificity for x in LAYOUTS), reverse=True
    )


@each_layout
def test_file_name_is_the_layout_name(layout):
    assert module_of(layout)
    assert re.fullmatch(r"[a-z][a-z0-9-]*", layout.name)


@each_layout
def test_docstring_shows_the_examples_codebook_key_with_shapes(layout, fake):
    (view,) = layout.find(state_dicts(fake(layout.example))[0], None)
    leaf = ".".join(view.keys["codebook"].split(".")[-2:])
    doc = module_of(layout).__doc__ or ""
    assert leaf in doc, f"{leaf} is not in the docstring"
    assert "[K" in doc or "K]" in doc


@each_layout
def test_example_is_claimed_by_its_own_layout(layout, fake):
    found = find_quantizers(fake(layout.example))
    (view,) = found.views
    expected = (layout.name, *layout.sees)
    assert (view.layout, view.name, view.num_codes, view.dim) == expected
    assert found.candidates == ()


@each_layout
def test_example_is_claimed_by_no_layout_as_picky(layout, fake):
    (state,) = state_dicts(fake(layout.example))
    rivals = [
        other.name
        for other in LAYOUTS
        if other is not layout and other.specificity >= layout.specificity and list(other.find(state, None))
    ]
    assert rivals == []


@each_layout
def test_arrays_have_the_announced_shapes_and_types(layout, fake):
    (view,) = find_quantizers(fake(layout.example)).views
    k, d = view.num_codes, view.dim
    assert view.codebook.shape == (k, d)
    assert view.codebook.dtype == "float32"
    if "counts" in view.keys:
        assert view.counts is not None
        assert view.counts.shape == (k,)
    if "sums" in view.keys:
        assert view.sums is not None
        assert view.sums.shape == (k, d)
    if layout.specificity < Specificity.LIBRARY:
        assert view.start_count is None, "a guess cannot know what the counts started from"
    if view.start_count is not None or view.default_decay is not None or view.smoothing:
        assert {"counts", "sums"} <= view.keys.keys(), "EMA constants without an EMA"


@each_layout
def test_nothing_but_a_flag_is_read_before_the_view_is_asked(layout, fake):
    tensors = fake(layout.example)
    (view,) = find_quantizers(tensors).views
    read = {key for key, tensor in tensors.items() if tensor.reads}
    assert read <= {view.keys.get("initted")}
    assert view.codebook is view.codebook
    assert tensors[view.keys["codebook"]].reads == 1


@each_layout
def test_other_tensors_of_that_name_but_no_fitting_shape_are_left_alone(layout, fake):
    """The names alone are not enough: integers, vectors and volumes are no codebooks."""
    (view,) = find_quantizers(fake(layout.example)).views
    key = view.keys["codebook"]
    for shape in ((7,), (2, 3, 4, 5), (0, 4)):
        (state,) = state_dicts(fake({**layout.example, key: shape}))
        assert list(layout.find(state, None)) == []
    tensors = fake(layout.example)
    tensors[key].dtype = "int64"
    assert list(layout.find(state_dicts(tensors)[0], None)) == []

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from vqdoctor.core.errors import UserError
from vqdoctor.core.evidence import Unavailable, Usage
from vqdoctor.probes.dump import DumpContext, all_probes, data_match, input_summary, non_finite, usage

K, D = 32, 6
RNG = np.random.default_rng(0)
CODES = RNG.normal(size=(K, D)).astype(np.float32)
Z = RNG.normal(size=(40, 5, 7, D)).astype(np.float32)  # samples, height, width, dimension
NEAREST = cdist(Z.reshape(-1, D), CODES).argmin(1)


@pytest.fixture
def dump(make_view):
    def dump(arrays, views=None, **kwargs):
        return DumpContext(views=views or (make_view(CODES),), arrays=arrays, **kwargs)

    return dump


@pytest.mark.parametrize(
    "z_e",
    [
        Z.reshape(-1, D),
        Z,
        np.moveaxis(Z, -1, 1),
        Z.reshape(40, 35, D),
        Z.reshape(40, 35, D).transpose(0, 2, 1),
        Z.astype(np.float64),
    ],
    ids=["[N, D]", "[B, H, W, D]", "[B, D, H, W]", "[B, T, D]", "[B, D, T]", "float64"],
)
def test_every_form_of_z_e_says_the_same(dump, ask, z_e):
    context = dump({"z_e": z_e}, histogram=True)
    found, match = ask(usage, context), ask(data_match, context)
    assert found.histogram == tuple(np.bincount(NEAREST, minlength=K))
    assert found.groups == (None if z_e.ndim == 2 else 40)
    assert (found.sample_size, found.source, found.estimator) == (1400, "batch", "grassberger")
    assert match.data_mean_norm == pytest.approx(np.linalg.norm(Z.reshape(-1, D).mean(0)), rel=1e-4)
    assert match.sample_size == 1400


@pytest.mark.parametrize("shape", [(-1,), (40, -1), (40, 5, 7)])
@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
def test_indices_of_any_shape(dump, ask, shape, dtype):
    found = ask(usage, dump({"indices": NEAREST.reshape(shape).astype(dtype)}))
    assert (found.used, found.sample_size) == (len(set(NEAREST)), 1400)
    assert found.groups == (None if shape == (-1,) else 40)


def test_dumped_indices_outrank_the_nearest_codes(dump, ask):
    context = dump({"z_e": Z, "indices": np.zeros((40, 35), int)})
    assert ask(usage, context).used == 1
    assert ask(data_match, context).quantization_error < 1


def test_a_cosine_codebook_chooses_by_direction(make_view, dump, ask):
    unit = CODES / np.linalg.norm(CODES, axis=1, keepdims=True)
    context = dump({"z_e": Z * 50}, views=(make_view(unit),), histogram=True)
    directions = cdist(Z.reshape(-1, D), unit, "cosine").argmin(1)
    assert ask(usage, context).histogram == tuple(np.bincount(directions, minlength=K))
    assert ask(data_match, context).data_rms == pytest.approx(1 / np.sqrt(D), rel=1e-4)


def test_summary_shows_what_was_saved(dump, ask):
    found = ask(input_summary, dump({"z_e": np.moveaxis(Z, -1, 1), "y": np.arange(40) % 3}))
    assert (found.name, found.shape, found.sample_size, found.labels) == ("z_e", (40, D, 5, 7), 40, 3)
    assert (found.minimum, found.maximum) == (Z.min(), Z.max())
    assert found.std == pytest.approx(Z.std(), rel=1e-5)


@pytest.mark.parametrize(
    ("arrays", "what"),
    [
        ({"indices": np.array([0, 32])}, "from 0 to 32, where vq has codes 0 to 31"),
        ({"indices": np.array([-2, 3])}, "from -2 to 3"),
        ({"indices": np.array([0.5])}, "no code indices"),
        ({"indices": np.zeros((0,), int)}, "no code indices"),
        ({"z_e": np.zeros((9, D + 1))}, "dimension 6"),
        ({"z_e": np.zeros((D, 9))}, r"\[D, N\]"),
        ({"z_e": np.zeros((0, D))}, "no real numbers"),
        ({"z_e": np.zeros((4, D), complex)}, "no real numbers"),
    ],
)
def test_what_cannot_be_is_the_users_error(dump, arrays, what):
    with pytest.raises(UserError, match=what):
        list(usage.PROBE.measure(dump(arrays)))


def test_two_axes_of_length_d_are_not_guessed(dump, ask):
    gap = ask(usage, dump({"z_e": np.zeros((9, D, D))}))
    assert isinstance(gap, Unavailable)
    assert "axes 1 and 2" in gap.reason and gap.hint == "save it as [N, 6]"


def test_nothing_dumped_and_non_finite_values_are_gaps(dump, ask, make_view):
    assert "no z_e" in ask(usage, dump({"x": Z})).reason
    assert "no z_e" in ask(data_match, dump({"indices": NEAREST})).reason
    sick = Z.copy()
    sick[3, 2, 1, :2] = np.nan, np.inf
    context = dump({"z_e": sick})
    assert ask(usage, context).reason == ask(input_summary, context).reason == "z_e has non-finite values"
    found = ask(non_finite, context)
    assert (found.nan, found.inf, found.tensors, found.sample_size) == (1, 1, ("z_e",), Z.size)
    assert not list(non_finite.PROBE.measure(dump({"z_e": Z})))
    broken = (make_view(CODES * np.nan),)
    assert ask(data_match, dump({"z_e": Z}, views=broken)).reason == "codebook has non-finite values"
    assert isinstance(ask(usage, dump({"indices": NEAREST}, views=broken)), Usage)


def test_several_layers_by_name_or_by_level(dump, ask, make_view):
    views = (make_view(CODES, name="rvq.0"), make_view(CODES, name="rvq.1"))
    levels = np.stack([NEAREST, NEAREST * 0], axis=1).reshape(40, 35, 2)
    named = {"indices/rvq.0": levels[..., 0], "indices/rvq.1": levels[..., 1], "z_e/rvq.0": Z}
    for arrays in ({"indices": levels}, {"indices": np.moveaxis(levels, -1, 1)}, named):
        context = dump(arrays, views=views)
        assert [ask(usage, context, name).used for name in ("rvq.0", "rvq.1")] == [len(set(NEAREST)), 1]
    assert ask(data_match, dump(named, views=views), "rvq.0").sample_size == 1400
    assert "z_e/rvq.1" in ask(data_match, dump(named, views=views), "rvq.1").hint
    assert "share one z_e" in ask(data_match, dump({"z_e": Z}, views=views), "rvq.0").reason


def test_every_probe_answers_for_every_layer(dump):
    for arrays in ({}, {"z_e": Z}, {"indices": NEAREST}, {"z_e": Z, "indices": NEAREST}):
        for probe in all_probes():
            items = list(probe.measure(dump(arrays)))
            if probe is not non_finite.PROBE:
                assert [item.layer for item in items] == ["vq"]
            assert {item.kind for item in items} <= {kind.kind for kind in probe.kinds}

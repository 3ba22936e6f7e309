"""Exact inference against a sum over all segmentations, and against autograd."""

import itertools
import math
from dataclasses import replace

import pytest
import torch

from vqdoctor.reference.chain.hsmm import DURATIONS, HSMM
from vqdoctor.reference.chain.segments import Scores, forward, label_loss, posterior, viterbi


def random_scores(batch, steps, states, longest, *, per_input=True, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    transition = normal(batch if per_input else 1, steps, states, states)
    transition = transition.masked_fill(torch.eye(states, dtype=torch.bool), -math.inf)
    return Scores(
        initial=torch.log_softmax(normal(states), 0),
        transition=torch.log_softmax(transition, -1),
        emission=normal(batch, steps, states),
        duration=torch.log_softmax(normal(longest, states), 0),
    )


def compositions(steps):
    """Yield every way to cut so many steps into segments, as the lengths."""
    for cuts in range(steps):
        for at in itertools.combinations(range(1, steps), cuts):
            ends = (0, *at, steps)
            yield [b - a for a, b in itertools.pairwise(ends)]


def by_hand(scores, row):
    """Return every segmentation of one sequence: its states, step by step, and its log-probability."""
    steps, states = scores.emission.shape[1:]
    longest = len(scores.duration)
    transition = scores.transition[row if len(scores.transition) > 1 else 0]
    for lengths in compositions(steps):
        if max(lengths) > longest:
            continue
        for path in itertools.product(range(states), repeat=len(lengths)):
            if any(a == b for a, b in itertools.pairwise(path)):
                continue
            total, start = float(scores.initial[path[0]]), 0
            for number, (state, length) in enumerate(zip(path, lengths, strict=True)):
                if number:
                    total += float(transition[start, path[number - 1], state])
                if number + 1 < len(path):
                    total += float(scores.duration[length - 1, state])
                else:  # it may go on beyond the sequence
                    total += math.log(float(scores.duration[length - 1 :, state].exp().sum()))
                total += float(scores.emission[row, start : start + length, state].sum())
                start += length
            yield [s for s, n in zip(path, lengths, strict=True) for _ in range(n)], total


CASES = [
    (7, 3, 4, True),
    (6, 3, 6, False),
    (6, 2, 9, True),
    (5, 4, 1, False),
    (1, 3, 2, True),
    (2, 2, 1, True),
]


@pytest.mark.parametrize(("steps", "states", "longest", "per_input"), CASES)
def test_all_segmentations_of_a_short_sequence(steps, states, longest, per_input):
    scores = random_scores(3, steps, states, longest, per_input=per_input)
    found, marginals, (path, best) = forward(scores), posterior(scores), viterbi(scores)
    for row in range(3):
        every = list(by_hand(scores, row))
        logs = torch.tensor([log for _, log in every], dtype=torch.float64)
        torch.testing.assert_close(found.log_likelihood[row], torch.logsumexp(logs, 0))
        expected = torch.zeros(steps, states, dtype=torch.float64)
        for (states_of, _), share in zip(every, torch.softmax(logs, 0), strict=True):
            expected[range(steps), states_of] += share
        torch.testing.assert_close(marginals[row], expected)
        top = int(logs.argmax())
        assert path[row].tolist() == every[top][0]
        assert float(best[row]) == pytest.approx(every[top][1])


def test_the_label_loss_is_what_the_segmentations_of_other_labels_carry():
    scores = random_scores(2, 6, 4, 6)
    labels = torch.tensor([[0, 0, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1]])
    expected = 0.0
    for row in range(2):
        every = list(by_hand(scores, row))
        held = [log for states, log in every if [state % 2 for state in states] == labels[row].tolist()]
        total = torch.logsumexp(torch.tensor([log for _, log in every], dtype=torch.float64), 0)
        expected += float(total - torch.logsumexp(torch.tensor(held, dtype=torch.float64), 0))
    assert float(label_loss(scores, labels, 2)) == pytest.approx(expected / labels.numel())


def test_the_posterior_is_the_gradient_of_the_likelihood():
    scores = random_scores(4, 40, 5, 12)
    emission = scores.emission.requires_grad_()
    (gradient,) = torch.autograd.grad(forward(scores).log_likelihood.sum(), emission)
    torch.testing.assert_close(posterior(scores), gradient)


def test_the_gradient_of_the_posterior():
    scores = random_scores(2, 5, 3, 3)

    def run(initial, emission, duration):
        return posterior(
            Scores(initial=initial, transition=scores.transition, emission=emission, duration=duration)
        )

    inputs = (scores.initial, scores.emission, scores.duration)
    assert torch.autograd.gradcheck(run, tuple(x.requires_grad_() for x in inputs))


def test_single_precision_and_long_sequences_stay_probabilities():
    torch.manual_seed(0)
    model = HSMM(6, 8, longest=60)
    found, _ = model(torch.randn(4, 200, 6))
    torch.testing.assert_close(found.sum(-1), torch.ones(4, 200), atol=1e-4, rtol=0)
    assert found.min() >= 0
    found.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("kind", DURATIONS)
@pytest.mark.parametrize("input_transitions", [False, True])
def test_no_state_follows_itself_and_durations_sum_to_one(kind, input_transitions):
    torch.manual_seed(0)
    model = HSMM(4, 3, durations=kind, longest=9, expected=3.0, input_transitions=input_transitions)
    scores = model.scores(torch.randn(2, 7, 4))
    assert torch.isneginf(scores.transition.diagonal(dim1=-2, dim2=-1)).all()
    torch.testing.assert_close(scores.transition.exp().sum(-1), torch.ones(scores.transition.shape[:-1]))
    torch.testing.assert_close(scores.duration.exp().sum(0), torch.ones(3))


def test_durations_agree_with_torchs_distributions():
    torch.manual_seed(0)
    steps = torch.arange(400.0)[:, None]
    binomial = DURATIONS["negative-binomial"](3, 400, 6.0)
    torch.nn.init.normal_(binomial.log_r)
    expected = torch.distributions.NegativeBinomial(binomial.log_r.exp(), logits=binomial.logit_p)
    torch.testing.assert_close(binomial(), expected.log_prob(steps), atol=1e-3, rtol=1e-4)
    mean = (binomial().exp() * (steps + 1)).sum(0)
    torch.testing.assert_close(mean, 1 + torch.exp(binomial.log_r + binomial.logit_p), rtol=1e-3, atol=0)
    poisson = DURATIONS["poisson"](3, 400, 6.0)
    torch.testing.assert_close(
        poisson(), torch.distributions.Poisson(poisson.log_rate.exp()).log_prob(steps), atol=1e-3, rtol=1e-4
    )


def test_durations_of_a_geometric_law_are_a_hidden_markov_model():
    """With a geometric duration an HSMM is an HMM (Rabiner 1989): forward algorithm by hand."""
    stay = torch.tensor([0.7, 0.4, 0.9], dtype=torch.float64)
    scores = random_scores(1, 12, 3, 300, per_input=False)
    steps = torch.arange(300, dtype=torch.float64)[:, None]
    geometric = steps * stay.log() + (1 - stay).log()
    # what lies beyond the longest duration is added to it, so that the law is whole
    geometric = torch.log_softmax(geometric, 0)
    scores = Scores(
        initial=scores.initial,
        transition=scores.transition[:, :1].expand(1, 12, 3, 3),
        emission=scores.emission,
        duration=geometric,
    )
    matrix = scores.transition[0, 0].exp() * (1 - stay)[:, None] + torch.diag(stay)
    alpha = scores.initial.exp() * scores.emission[0, 0].exp()
    for t in range(1, 12):
        alpha = (alpha @ matrix) * scores.emission[0, t].exp()
    torch.testing.assert_close(forward(scores).log_likelihood[0], alpha.sum().log())


def test_decoding_notes_where_the_last_sequence_ended():
    torch.manual_seed(0)
    model = HSMM(3, 3, longest=10, expected=4.0).eval()
    path = model.decode(model.scores(torch.randn(2, 15, 3)))
    assert int(model.current_state) == int(path[-1, -1])
    assert 0 <= float(model.duration_remaining) <= 10


@pytest.mark.parametrize("arguments", [{"states": 1}, {"states": 3, "durations": "uniform"}])
def test_what_cannot_be_built_is_refused(arguments):
    with pytest.raises(ValueError, match="cannot be built"):
        HSMM(4, **arguments)


def test_durations_of_one_agree_with_hmmlearn():
    hmm = pytest.importorskip("hmmlearn.hmm", reason="hmmlearn is not among the development packages")
    scores = random_scores(1, 30, 4, 1, per_input=False)
    symbols = torch.randint(6, (30,), generator=torch.Generator().manual_seed(1))
    emission = torch.softmax(torch.randn(4, 6, dtype=torch.float64), 1)
    scores = replace(
        scores,
        transition=scores.transition[:, :1].expand(1, 30, 4, 4),
        emission=emission.log()[:, symbols].T[None],
    )
    peer = hmm.CategoricalHMM(n_components=4)
    peer.startprob_, peer.transmat_ = scores.initial.exp().numpy(), scores.transition[0, 0].exp().numpy()
    peer.emissionprob_ = emission.numpy()
    seen = symbols[:, None].numpy()
    assert float(forward(scores).log_likelihood[0]) == pytest.approx(peer.score(seen))
    assert posterior(scores)[0].numpy() == pytest.approx(peer.predict_proba(seen))
    path, best = viterbi(scores)
    log, expected = peer.decode(seen)
    assert path[0].tolist() == expected.tolist() and float(best[0]) == pytest.approx(log)

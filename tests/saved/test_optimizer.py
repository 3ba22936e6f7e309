import numpy as np

from vqdoctor.saved.optimizer import align


def test_alignment_is_that_of_all_embeddings():
    rng = np.random.default_rng(0)
    for _ in range(300):
        entries = [(int(n),) for n in rng.integers(0, 3, 6)]
        slots = [None if n == 3 else (int(n),) for n in rng.integers(0, 4, rng.integers(1, 5))]
        every = list(embeddings(slots, entries, 0))
        expected = ([min(c) for c in zip(*every, strict=True)], [max(c) for c in zip(*every, strict=True)])
        assert align(slots, entries) == (expected if every else None)


def embeddings(slots, entries, start):
    if not slots:
        yield []
        return
    for at in range(start, len(entries)):
        if slots[0] in (None, entries[at]):
            for rest in embeddings(slots[1:], entries, at + 1):
                yield [at, *rest]

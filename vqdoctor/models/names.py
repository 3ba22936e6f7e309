"""Which tensor of a file belongs to which of a model, where one of them has prefixes that the other lacks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from vqdoctor.layouts.state_dict import StateDict, strip_prefixes


def align(own: Collection[str], state: StateDict, codebook: str) -> dict[str, str]:
    """Return the model's names that the file has, each with its clean name in `state`.

    The codebook is the anchor: wherever its name ends as a name of the model does, the rest of both names is
    taken for a prefix, and the prefixes under which most names agree win. Names that agree as they are stay
    matched, as in a model whose quantizer alone was renamed.

    Args:
        own: names of the model's state dict.
        state: the file's state dict.
        codebook: clean name of a codebook in it.
    """
    clean = {name: name for name in state.entries}
    raw = {key: name for name, key in state.raw.items()}
    mine = {name: name for name in own}
    bare = {strip_prefixes(name): name for name in own}
    ways = [_best(mine, clean, codebook), _best(mine, raw, state.raw.get(codebook, codebook))]
    if len(bare) == len(own):
        ways.append(_best(bare, clean, codebook))
    return max(ways, key=len)  # of equals the first, which changes least


def _best(own: Mapping[str, str], file: Mapping[str, str], anchor: str) -> dict[str, str]:
    best: dict[str, str] = {}
    for ours, theirs in dict.fromkeys((("", ""), *_prefixes(own, anchor))):
        matched = {
            own[mine]: clean
            for key, clean in file.items()
            if key.startswith(theirs) and (mine := ours + key[len(theirs) :]) in own
        }
        placed = set(matched.values())
        as_they_are = {own[key]: clean for key, clean in file.items() if key in own and clean not in placed}
        matched = as_they_are | matched
        best = max(best, matched, key=len)
    return best


def _prefixes(own: Iterable[str], anchor: str) -> Iterator[tuple[str, str]]:
    """Yield (prefix in the model, prefix in the file) for every name that ends as the anchor does."""
    tokens = anchor.split(".")
    for name in own:
        other = name.split(".")
        least = min(len(tokens), len(other))
        pairs = zip(reversed(tokens), reversed(other), strict=False)
        common = next((i for i, (one, two) in enumerate(pairs) if one != two), least)
        # One common word, such as "weight", is not enough, unless it is the whole of a name.
        if common > 1 or common == least:
            yield _prefix(other, common), _prefix(tokens, common)


def _prefix(tokens: list[str], common: int) -> str:
    return "".join(f"{token}." for token in tokens[: len(tokens) - common])

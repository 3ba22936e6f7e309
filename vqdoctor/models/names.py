"""Which tensor of a file belongs to which of a model, where one of them has prefixes that the other lacks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from vqdoctor.layouts.state_dict import StateDict, strip_prefixes


def align(own: Collection[str], state: StateDict, codebook: str) -> dict[str, str]:
    """Return the model's names that the file has, each with its clean name in `state`.

    The codebook is the anchor: wherever its name ends as a name of the model does, what stands before
    is taken for a prefix, and the prefixes under which most names agree win.

    Args:
        own: names of the model's state dict.
        state: the file's state dict.
        codebook: clean name of a codebook in it.
    """
    clean = {name: name for name in state.entries}
    raw = {key: name for name, key in state.raw.items()}
    anchor = state.raw.get(codebook, codebook)
    bare = {strip_prefixes(name): name for name in own}
    ways = [_best({name: name for name in own}, clean, codebook)]
    ways.append(_best({name: name for name in own}, raw, anchor))
    if len(bare) == len(own):
        ways.append(_best(bare, clean, codebook))
    return max(ways, key=len)  # of equals the first, which changes least


def _best(own: Mapping[str, str], file: Mapping[str, str], anchor: str) -> dict[str, str]:
    pairs = {("", ""): None, **dict.fromkeys(_prefixes(own, anchor))}
    return max((_matched(own, file, *pair) for pair in pairs), key=len)


def _prefixes(own: Iterable[str], anchor: str) -> Iterable[tuple[str, str]]:
    """Yield (prefix in the model, prefix in the file) for every name that ends as the anchor does."""
    tokens = anchor.split(".")
    for name in own:
        other = name.split(".")
        common = 0
        while common < min(len(tokens), len(other)) and tokens[-1 - common] == other[-1 - common]:
            common += 1
        # One common word, such as "weight", says nothing, unless it is the whole of a name.
        if common > 1 or common == min(len(tokens), len(other)):
            yield _prefix(other, common), _prefix(tokens, common)


def _prefix(tokens: list[str], common: int) -> str:
    return "".join(f"{token}." for token in tokens[: len(tokens) - common])


def _matched(own: Mapping[str, str], file: Mapping[str, str], ours: str, theirs: str) -> dict[str, str]:
    return {
        own[mine]: clean
        for key, clean in file.items()
        if key.startswith(theirs) and (mine := ours + key[len(theirs) :]) in own
    }

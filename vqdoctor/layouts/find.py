"""Finding every VQ layer of a checkpoint file, or the one that the user names."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import replace
from hashlib import sha256

from vqdoctor.core.errors import UserError
from vqdoctor.core.frozen import frozen
from vqdoctor.core.report import Candidate
from vqdoctor.layouts.build import build, is_float
from vqdoctor.layouts.candidates import candidates
from vqdoctor.layouts.families import all_layouts
from vqdoctor.layouts.implicit import implicit_notes
from vqdoctor.layouts.layout import Orientation
from vqdoctor.layouts.relation import BY_RELATION, proven
from vqdoctor.layouts.siblings import layer_path, statistics
from vqdoctor.layouts.state_dict import StateDict, is_optimizers, state_dicts, strip_prefixes
from vqdoctor.layouts.view import QuantizerView, Tensor
from vqdoctor.layouts.words import foreign_word, is_code_word, near_vq

NAMED = "named by the user"
PARTITIONED = (
    "it is empty here, as DeepSpeed's ZeRO-3 leaves it: join the parts with the zero_to_fp32.py beside them"
)

Views = tuple[QuantizerView, ...]
States = tuple[StateDict, ...]


@frozen
class Found:
    """The recognised layers of a file.

    Attributes:
        views: the VQ layers, in the file's order, with names that differ.
        candidates: where there is no view, the tensors nearest to a codebook, best first.
        notes: the tensors that were passed over and why, one line each.
        unseen: the notes on quantizers whose codes only a model shows.
        unread: tensors with the name of a codebook that the reader left out, and why, one line each.
    """

    views: Views
    candidates: tuple[Candidate, ...] = ()
    notes: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()


def find_quantizers(
    tensors: Mapping[str, Tensor],
    *,
    layer: str | None = None,
    codebook_key: str | None = None,
    orientation: Orientation | None = None,
    skipped: Mapping[str, str] | None = None,
) -> Found:
    """Find the VQ layers of a file from its keys, shapes and types; linear in the number of keys.

    Args:
        tensors: raw dotted key to lazy tensor, for the whole file, in its order.
        layer: keep this layer alone (with its heads, or with all that lies under that path).
        codebook_key: take this tensor, by raw or clean name, for the codebook, and nothing else.
        orientation: "kd" if codes are rows, "dk" if they are columns, where the shapes do not tell.
        skipped: raw key of each tensor that could not be read, and why.

    Raises:
        UserError: if there is no such layer or key (the known and the closest ones are named), if that
            tensor cannot be a codebook, or if `orientation` contradicts its counts.
    """
    states = state_dicts(tensors)
    notes: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
    if codebook_key is not None:
        views = _at_key(states, codebook_key, orientation)
    else:
        views, notes = _everywhere(states, orientation)
        views = _merged(views, tensors)
        unseen = tuple(note for state in states if not state.is_copy for note in implicit_notes(state))
    if layer is not None:
        views = _only(views, layer)
    return Found(
        views=views,
        candidates=() if views else candidates(states),
        notes=(*notes, *unseen),
        unseen=unseen,
        unread=tuple(
            f"{key}: {why}"
            for key, why in {**dict.fromkeys(_empty(tensors), PARTITIONED), **(skipped or {})}.items()
            if _is_codebooks(key)
        ),
    )


def _empty(tensors: Mapping[str, Tensor]) -> Iterator[str]:
    """Yield the tensors without elements, as ZeRO-3 leaves parameters whose elements lie in other files."""
    return (key for key, tensor in tensors.items() if tensor.shape == (0,))


def _is_codebooks(key: str) -> bool:
    """Whether a tensor's name alone is that of a codebook."""
    tokens = strip_prefixes(key).split(".")
    is_table = any(is_code_word(token) for token in tokens[-2:])
    optimizers = any(is_optimizers(token) for token in key.split(".")[:-1])
    return is_table and near_vq(tokens) and foreign_word(tokens) is None and not optimizers


def _everywhere(states: States, orientation: Orientation | None) -> tuple[Views, tuple[str, ...]]:
    """Return each layer's view once; the views of a running average only where all else has none."""
    seen: dict[str, tuple[QuantizerView, StateDict]] = {}
    notes: dict[str, None] = {}
    for state in states:
        if state.is_copy and seen:
            main = next(iter(seen.values()))[1]
            notes[f"{_shown(state)} holds a running average of the model; judged is {_shown(main)}"] = None
            continue
        for view in _recognised(state, orientation):
            if view.name in seen:
                other, main = seen[view.name]
                if main is not state and (other.num_codes, other.dim) == (view.num_codes, view.dim):
                    notes[f"{_shown(state)} repeats layers; judged is {_shown(main)}"] = None
                    continue
                # Where two layers would share a name, the later one has its key's.
                view = replace(view, name=view.keys["codebook"] + _head(view.name))
            seen[view.name] = (view, state)
    return tuple(view for view, _ in seen.values()), tuple(notes)


def _merged(views: Views, tensors: Mapping[str, Tensor]) -> Views:
    """Return one view for the layers that share one codebook: the first, which names the others."""
    by_tensors: dict[Hashable, list[QuantizerView]] = {}
    keys = {key for view in views for key in view.keys.values()}  # the heads of a layer share them
    known = {key: _identity(key, tensors[key]) for key in keys}
    for view in views:
        identities = tuple((role, known[key]) for role, key in view.keys.items())
        by_tensors.setdefault((identities, _head(view.name)), []).append(view)
    return tuple(
        replace(
            first,
            shared_with=tuple(view.name for view in others),
            copies={
                key: tuple(view.keys[role] for view in others)
                for role, key in first.keys.items()
                if _has_own_storage(key, tensors[key])
            },
        )
        if others
        else first
        for first, *others in by_tensors.values()
    )


def _has_own_storage(key: str, tensor: Tensor) -> bool:
    """Whether the container stores each name's elements for themselves, as safetensors does."""
    return getattr(tensor, "storage_id", None) == key


def _identity(key: str, tensor: Tensor) -> Hashable:
    """Return the identity of a tensor's elements; its key where the storage is unknown.

    Where a shared tensor is written once for each name, the elements themselves are compared, unless they are
    all one value, as before a training.
    """
    storage = getattr(tensor, "storage_id", None)
    if storage is None:
        return key
    if _has_own_storage(key, tensor):
        values = tensor.read()
        if values.size > 1 and (values == values.flat[0]).all():
            return key
        return tensor.shape, tensor.dtype, sha256(values.tobytes()).digest()
    return storage, getattr(tensor, "offset", 0), getattr(tensor, "strides", None), tensor.shape, tensor.dtype


def _recognised(state: StateDict, orientation: Orientation | None) -> list[QuantizerView]:
    """Return the views of one state dict in its order; the most specific layout gets the codebook."""
    claims: dict[str, tuple[str, list[QuantizerView]]] = {}
    for layout in all_layouts():
        for view in layout.views(state, orientation):
            owner, views = claims.setdefault(view.keys["codebook"], (layout.name, []))
            if owner == layout.name:
                views.append(view)
    with_counts = [view for _, views in claims.values() for view in views if "counts" in view.keys]
    known = {key for view in with_counts for key in view.keys.values()}
    for view in proven(state, known):  # it takes the place of one that was found without its statistics
        owner, views = claims.get(view.keys["codebook"], ("", []))
        claims.pop(view.keys["sums"], None)  # its name may be that of a codebook
        claims[view.keys["codebook"]] = (BY_RELATION, [*(views if owner == BY_RELATION else []), view])
    order = {raw: i for i, raw in enumerate(state.raw.values())}
    return [view for key in sorted(claims, key=order.__getitem__) for view in claims[key][1]]


def _head(name: str) -> str:
    """Return the part of a layer's name that says which head it is; "" if it has no heads."""
    return name[name.index("[head ") :] if "[head " in name else ""


def _shown(state: StateDict) -> str:
    return f'"{state.prefix}*"' if state.prefix else "the top level"


def _at_key(states: States, key: str, orientation: Orientation | None) -> Views:
    """Return the views of the codebook that the user names: as a layout sees it, or else as a plain table."""
    state, name = _lookup(states, key)
    table = state.entries[name]
    if not is_float(table) or len(table.shape) not in (2, 3) or 0 in table.shape:
        raise UserError(
            f"{key!r} is {table.dtype} {list(table.shape)}, which is not a codebook",
            "a codebook is a float tensor [K, D], or [H, K, D] for H heads",
        )
    views = [v for v in _recognised(state, orientation) if v.keys["codebook"] == state.raw[name]]
    views = views or list(_plain(state, name, orientation))
    # A derived codebook's table has a row for each code, whose dimension may be another.
    dim = table.shape[-2 if orientation == "dk" else -1]
    suits = orientation == "kd" if views[0].derived else views[0].dim == dim
    if orientation is not None and not suits:
        shape, codes = list(table.shape), views[0].num_codes
        raise UserError(
            f"{key!r} is {shape} and has {codes} codes, so it is not {orientation!r}",
            "leave the orientation out, or name another key",
        )
    return tuple(views)


def _plain(state: StateDict, name: str, orientation: Orientation | None) -> Iterator[QuantizerView]:
    """Yield the views of a table that no layout knows, with the EMA statistics beside it, if any."""
    owner = name.rpartition(".")[0]
    for path in (owner, owner.rpartition(".")[0]):
        roles, how = statistics(state, path, orientation, codebook=name)
        if how is not None:
            break
    for view in build(
        state,
        name=layer_path(owner),
        roles=roles or {"codebook": name},
        transposed=how.transposed if how else orientation == "dk",
        num_codes=how.num_codes if how else None,
    ):
        yield replace(view, layout=NAMED)


def _lookup(states: States, key: str) -> tuple[StateDict, str]:
    """Return where the tensor of that raw key, or else of that clean name, lies."""
    for state in states:
        for name, raw in state.raw.items():
            if raw == key:
                return state, name
    for state in states:
        if key in state.entries:
            return state, key
    tables = (
        raw for state in states for name, raw in state.raw.items() if 2 <= len(state.entries[name].shape) <= 3
    )
    from difflib import get_close_matches  # 8 ms that only a mistake should cost

    close = ", ".join(get_close_matches(key, tables, n=4, cutoff=0.5))
    hint = f"the closest are {close}" if close else "name one of the file's float matrices"
    raise UserError(f"no tensor {key!r} in the file", hint)


def _only(views: Views, layer: str) -> Views:
    """Return the views of that layer: itself, its heads, the layers under that path, or what it shares."""
    for name in (layer, strip_prefixes(layer)):
        if kept := tuple(v for v in views if lies_in(name, v.name)):
            return kept
        if kept := tuple(v for v in views if any(lies_in(name, other) for other in v.shared_with)):
            return kept
    known = ", ".join(view.name for view in views)
    raise UserError(
        f"no VQ layer {layer!r} in the file",
        f"the known ones are {known}" if known else "none was recognised; name its codebook's key",
    )


def lies_in(path: str, layer: str) -> bool:
    """Whether a layer is the one at that path, a head of it, or lies under it."""
    return layer == path or layer.startswith((f"{path}.", f"{path}["))

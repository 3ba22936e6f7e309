"""Layers with EMA statistics under a library's fixed names, declared by these names and a few numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field, replace

from vqdoctor.core.frozen import frozen
from vqdoctor.core.levels import Confidence
from vqdoctor.layouts.build import build, fit, holds, is_float
from vqdoctor.layouts.layout import Ema, Orientation
from vqdoctor.layouts.orientation import told_by_sums
from vqdoctor.layouts.state_dict import StateDict, join
from vqdoctor.layouts.view import QuantizerView


@frozen
class EmaLayers:
    """Finds every layer that holds all of a library's tensors, with shapes that fit.

    Attributes:
        codebook: suffix of the codebook under the VQ layer's path.
        counts: suffix of the counts.
        sums: suffix of the sums, of the codebook's shape.
        initted: suffix of the flag of data-driven initialisation; "" where the library has none.
        unless: suffix of a tensor that another library's layers have beside the same names; "" for none.
        ema: the library's constants.
        from_one_with_bool: whether the counts start at one where the flag is stored as a bool.
        columns: whether the library stores codes as columns. Where K = D the shapes do not show it: the sums
            do, and where they do not either, the confidence is medium without the user's word.
    """

    codebook: str
    counts: str
    sums: str
    initted: str = ""
    unless: str = ""
    ema: Ema = field(default_factory=Ema)
    from_one_with_bool: bool = False
    columns: bool = False

    def __call__(self, state: StateDict, orientation: Orientation | None) -> Iterator[QuantizerView]:
        """Yield one view for each layer, and one for each head where heads have their own codebook."""
        suffixes = {role: getattr(self, role) for role in ("codebook", "counts", "sums", "initted")}
        for path in state.owners(self.codebook):
            roles = {role: join(path, suffix) for role, suffix in suffixes.items() if suffix}
            tensors = [state.entries.get(key) for key in roles.values()]
            codebook, counts = tensors[:2]
            if codebook is None or counts is None or None in tensors or not is_float(codebook):
                continue
            if self.unless and state.get(path, self.unless) is not None:
                continue
            sums = tensors[2]
            if sums is None or not holds(sums, codebook.shape):
                continue
            how = fit(codebook.shape, counts.shape, (orientation or "dk") if self.columns else None)
            if how is None or how.num_codes not in codebook.shape:
                continue
            told = orientation
            if self.columns and how.ambiguous and told is None:
                told = told_by_sums(codebook, sums)
                if told == "kd":  # this library's names, and another's codes
                    continue
            if how.transposed or how.ambiguous if self.columns else not how.transposed:
                guessed = self.columns and how.ambiguous and told is None
                from_one = self.from_one_with_bool and state.entries[roles["initted"]].dtype == "bool"
                yield from build(
                    state,
                    name=path,
                    roles=roles,
                    confidence=Confidence.MEDIUM if guessed else Confidence.HIGH,
                    ema=replace(self.ema, start_count=1.0) if from_one else self.ema,
                    transposed=how.transposed,
                )

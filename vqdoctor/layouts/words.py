"""The words in key paths that speak for a codebook, and the words that speak against it."""

from __future__ import annotations

import re
from collections.abc import Sequence

#: What a table of codes is called when nothing else is said of it.
TABLES = (
    "embed", "embedding", "_embedding", "embeddings", "codebook", "_codebook", "codebooks", "codes",
    "centroids", "prototypes", "cb", "CB", "w_embedding",
)  # fmt: skip

_VQ = re.compile(
    r"vq|quanti[sz]|(?:^|_)quant(?:_|$)|codebook|^bottleneck$|^level_blocks$|^(?:rq|pq|opq|rpq|grq)$"
)
_CODE = re.compile(r"embed|codebook|^codes?$|centroid|prototype|^code_?vectors$")
_PROJECTION = re.compile(r"proj|linear|conv|norm|transform|lora|scale|mlp|attn|attention")
_MAP = re.compile(
    r"head|class|logit|gate|pred"
    r"|^(?:in|out|fc\d*|lin\d*|layer\d*|to_\w+|w_?[qkvo]|q|k|v|key|query|value|mask)$"
)
_TABLE = re.compile(
    r"tok(?:en)?_(?:emb|type)|word_emb|pos_?emb|position|class_emb|label_emb|time_?emb"
    r"|^embed_tokens$|^wte$|^wpe$|^lm_head$|relative_attention_bias"
)
_SUBTREE = re.compile(
    r"^loss(?:es)?$|discriminator|(?:^|_)disc(?:s|_|$)|^net_?d$|critic|lpips|perceptual|^(?:mpd|msd|mrd)$"
)

#: Modules that lie between a VQ-named ancestor and a tensor that is no codebook ("vqmodel.encoder.…").
_NETWORK = re.compile(r"^(?:encoder|decoder|transformer|backbone|blocks|head)$")

#: Lists that a quantizer keeps its levels or groups in; what they are part of is said before them.
_LIST = re.compile(r"^(?:levels?|layers|stages|groups)$")


def vq_word(tokens: Sequence[str]) -> str | None:
    """Return the last token that names a quantizer, a codebook or its usual home; None if there is none."""
    return next((t for t in reversed(tokens) if _VQ.search(t.lower())), None)


def is_code_word(token: str) -> bool:
    """Whether the token is a usual name of a table of codes ("embed", "codebook", "centroids")."""
    return _CODE.search(token.lower()) is not None and not is_projection(token)


def is_projection(token: str) -> bool:
    """Whether the token is a usual name of a map between spaces, whose weight is a matrix as well."""
    return _PROJECTION.search(token.lower()) is not None


def is_map(token: str) -> bool:
    """Whether the token is a usual name of a layer that maps to other outputs, with or without a bias."""
    return _MAP.search(token.lower()) is not None


def foreign_word(tokens: Sequence[str]) -> str | None:
    """Return the token that says "not a codebook": a token or position embedding, a loss, a discriminator."""
    return next((t for t in tokens if _TABLE.search(t.lower()) or _SUBTREE.search(t.lower())), None)


def is_judges(tokens: Sequence[str]) -> bool:
    """Whether a path leads into a loss or a discriminator, which are trained beside the model."""
    return any(_SUBTREE.search(t.lower()) for t in tokens)


def near_vq(tokens: Sequence[str], reach: int = 3) -> bool:
    """Whether a quantizer is named among the last `reach` tokens, apart from indices and lists of levels.

    A network's part in between breaks the tie: "vq.embedding" is near, "vqgan.encoder.embedding" is not.
    """
    following = (*tokens[1:], "")
    names = [
        token
        for token, after in zip(tokens, following, strict=True)
        if not token.isdigit() and not (after.isdigit() and _LIST.search(token.lower()))
    ]
    for token in names[::-1][:reach]:
        if _VQ.search(token.lower()):
            return True
        if _NETWORK.search(token.lower()):
            return False
    return False

"""The escaping of strangers' strings, for a terminal, a page and a picture alike."""

import unicodedata

_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
"""Control, format (bidirectional overrides), surrogate, private use, line and paragraph separators."""

LONGEST = 1_000
"""Characters of one string that are shown."""

_ASCII = str.maketrans(
    {
        "–": "-", "—": "-", "−": "-", "×": "x", "·": "*", "…": "...", "→": "->", "≤": "<=", "≥": ">=",
        "±": "+-", "≈": "~", "‖": "||", "∇": "grad ", "Σ": "sum", "β": "beta", "τ": "tau", "²": "^2",
        "█": "#", "▒": "+", "░": ".", "▁": ":", "▂": "-", "▃": "=", "▄": "+", "▅": "*", "▆": "o", "▇": "%",
        "✓": "ok", "✗": "!!", "─": "-",
        "‘": "'", "’": "'", "“": '"', "”": '"', "\u00a0": " ", "\u202f": " ",
    }
)  # fmt: skip


def printable(text: str, *, ascii: bool = False) -> str:
    r"""Return `text` on one line, with each character spelled out that could steer a terminal.

    Control characters, bidirectional overrides and lone surrogates become `\x1b`, `\u202e` and so
    on; with `ascii`, the characters beyond ASCII are transliterated or spelled out too. No honest string
    is longer than `LONGEST`; a longer one is cut.
    """
    if len(text) > LONGEST:
        text = f"{text[:LONGEST]}… ({len(text) - LONGEST:,} more characters)"
    if ascii:
        text = text.translate(_ASCII)
    return "".join(
        c.encode("unicode_escape").decode()
        if (ascii and ord(c) > 0x7E) or unicodedata.category(c) in _UNSAFE
        else c
        for c in text
    )

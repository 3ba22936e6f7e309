"""JSON that is safe to print: escaped where a terminal or its encoding could not bear a character."""

import json
import re
from collections.abc import Mapping, Sequence

Json = Mapping[str, object] | Sequence[object]
"""A JSON object or list; `json` refuses values of other types."""

# JSON lets these stand in a string as they are, but a terminal may obey them, and UTF-8 refuses surrogates.
_UNSAFE = re.compile(
    "[\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)
_NOT_ASCII = re.compile("[^\x00-\x7e]")


def safe_json(value: Json, *, ascii: bool) -> str:
    """Return `value` as indented JSON that ends in a newline; no NaN is ever written."""

    def escape(match: re.Match[str]) -> str:
        units = match[0].encode("utf-16-be", "surrogatepass").hex()
        return "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4))

    text = json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False)
    return (_NOT_ASCII if ascii else _UNSAFE).sub(escape, text) + "\n"

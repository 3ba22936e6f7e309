"""Words and numbers as all formats write them."""

import re
from collections.abc import Iterable

from vqdoctor.core.printable import LONGEST as LONGEST
from vqdoctor.core.printable import printable as printable


def number(value: float) -> str:
    """Write a number for a reader: whole numbers whole, others with four significant digits."""
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:.4g}"


def against(value: float, limit: float) -> tuple[str, str]:
    """Write a value and its limit, with as many digits as it takes to tell them apart."""
    short = number(value), number(limit)
    return short if short[0] != short[1] or value == limit else (repr(value), repr(limit))


def percent(share: float) -> str:
    """Write a share of one as a percentage with one decimal."""
    return f"{100 * share:.1f} %"


def count(amount: float, singular: str, plural: str = "") -> str:
    """Write an amount with its noun in the right number: "1 code", "28,752 vectors"."""
    return f"{number(amount)} {singular if amount == 1 else plural or singular + 's'}"


def size(amount: int) -> str:
    """Write a number of bytes in the unit that suits it."""
    if amount < 1024:
        return count(amount, "byte")
    value, units = amount / 1024, ["KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{value:.1f} {units[0]}"


def listing(items: list[str], at_most: int = 8) -> str:
    """Write a list in one line; the tail of a long one becomes a number."""
    more = len(items) - at_most
    return ", ".join(items[:at_most]) + (f" and {more} more" if more > 0 else "")


def layers_in_short(names: Iterable[str], at_most: int = 8) -> str:
    """Write the names of layers in one line, levels of one stack as a range: "rvq.layers.0–3"."""
    stacks: dict[tuple[str, str], list[int]] = {}
    for name in dict.fromkeys(names):
        # The last part that is a number is the level; a number of ten digits is none.
        level = re.fullmatch(r"((?:.*\.)?)(0|[1-9][0-9]{0,8})((?:\..*)?)", name, re.DOTALL)
        stacks.setdefault((level[1], level[3]) if level else (name, ""), []).append(
            int(level[2]) if level else -1
        )
    told = []
    for (before, after), levels in stacks.items():
        runs: list[list[int]] = []
        for level_ in sorted(levels):
            if runs and level_ == runs[-1][-1] + 1:
                runs[-1].append(level_)
            else:
                runs.append([level_])
        spans = (f"{run[0]}–{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
        told += [f"{before}{'' if levels == [-1] else span}{after}" for span in spans]
    return listing(told, at_most)

"""Codes of checks as a user types them."""

from __future__ import annotations

from vqdoctor.checks import all_checks
from vqdoctor.core.check import Check


def find_check(text: str) -> Check:
    """Return the check of that code or name, in any case.

    Raises:
        UserError: if there is none; the hint names similar ones.
    """
    typed = text.strip().lower()
    for check in all_checks():
        if typed in (check.code.lower(), check.name):
            return check
    from vqdoctor.engine.evaluate import unknown_check

    raise unknown_check(text, all_checks())


def complete(incomplete: str) -> list[str]:
    """Return the codes that begin so, for the shell's completion."""
    return [c.code for c in all_checks() if c.code.startswith(incomplete.upper())]

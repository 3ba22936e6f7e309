"""Codes of checks as a user types them."""

from __future__ import annotations

from vqdoctor.checks import all_checks
from vqdoctor.core.check import Check
from vqdoctor.core.errors import UserError, near
from vqdoctor.core.settings import Settings


def find_check(text: str) -> Check:
    """Return the check of that code or name, in any case.

    Raises:
        UserError: if there is none; the hint names those that are close.
    """
    wanted = text.strip().lower()
    for check in all_checks():
        if wanted in (check.code.lower(), check.name):
            return check
    raise _unknown(text)


def require_known(settings: Settings) -> None:
    """Make sure that every code of the settings is a check's or, where a beginning is enough, begins one.

    Raises:
        UserError: if not; the hint names those that are close.
    """
    known = [check.code for check in all_checks()]
    for code in settings.limits:
        if code not in known:
            raise _unknown(code)
    for prefix in (*settings.select, *settings.ignore):
        if not any(code.startswith(prefix) for code in known):
            raise _unknown(prefix)


def complete(incomplete: str) -> list[str]:
    """Return the codes that begin so, for the shell's completion."""
    return [c.code for c in all_checks() if c.code.startswith(incomplete.upper())]


def _unknown(text: str) -> UserError:
    words = [word for check in all_checks() for word in (check.code, check.name)]
    typed = text.upper() if text[:2].upper() == "VQ" else text.lower()
    return UserError(f"there is no check {text}", near(typed, words, most=4) or "`vqdoctor checks` lists all")

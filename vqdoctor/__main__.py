"""`python -m vqdoctor`, and the command `vqdoctor`."""

from __future__ import annotations

import sys

INTERRUPTED = 130
"""The exit code of a program that Ctrl-C ended, by the convention of shells."""


def start() -> None:
    """Run the command line; Ctrl-C ends it quietly while it is still being imported, too."""
    try:
        from vqdoctor.cli.main import run

        run()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    start()

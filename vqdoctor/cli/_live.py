"""A text that is drawn again in its place, and a key that ends it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vqdoctor.cli._output import is_terminal


@contextmanager
def drawing(live: bool) -> Iterator[Callable[[str], None]]:
    """Give a function that draws a text in the place of the one before; it draws nothing unless `live`."""
    if not live:
        yield lambda text: None
        return
    from rich.live import Live
    from rich.text import Text

    with Live(auto_refresh=False) as place:
        yield lambda text: place.update(Text(text), refresh=True)


@contextmanager
def pressed(key: str) -> Iterator[Callable[[float], bool]]:
    """Give a function that waits for some seconds, and says whether the key was pressed meanwhile.

    Where standard input is not a terminal, or the system has no such terminals, no key is read.
    """
    try:
        import select
        import termios
        import tty
    except ImportError:  # Windows
        yield _waited
        return
    if not is_terminal(sys.stdin):
        yield _waited
        return
    place = sys.stdin.fileno()
    before = termios.tcgetattr(place)

    def read(seconds: float) -> bool:
        ready, _, _ = select.select([sys.stdin], [], [], seconds)
        return bool(ready) and sys.stdin.read(1) == key

    try:
        tty.setcbreak(place)
        yield read
    finally:
        termios.tcsetattr(place, termios.TCSADRAIN, before)


def _waited(seconds: float) -> bool:
    time.sleep(seconds)
    return False

"""Plain English: no banned phrase in the package, the pages and the files for CI.

The phrases, each with its reason and better words, are in tests/language.py.
"""

from __future__ import annotations

import re

import pytest
from language import PHRASES, Phrase, all_hits, found_in, hits, python_texts


@pytest.mark.parametrize("phrase", PHRASES, ids=[phrase.foreign for phrase in PHRASES])
def test_every_phrase_finds_its_example_and_passes_the_better_words(phrase: Phrase) -> None:
    assert re.search(found_in(phrase), phrase.foreign)
    assert list(hits(phrase.plain, "", 1)) == [], "the better words are banned too"


def test_no_page_and_no_file_has_one() -> None:
    assert sorted(all_hits()) == [], "say it in plain English: `python tests/language.py` lists the hits"


def test_texts_of_python_are_docstrings_messages_and_f_strings() -> None:
    source = """
'A docstring of it.'
x = f"the {name!r} shows\\n a code"
key = "no-text"
y = "one " "two three"
"""
    assert sorted(python_texts(source)) == [
        (2, "A docstring of it."),
        (3, "the … shows\n a code"),
        (5, "one two three"),
    ]


def test_a_phrase_over_a_line_end_is_found_on_its_line() -> None:
    (hit,) = hits("A sentence.\nHere the option says\nnothing at all.", "a.md", 10)
    assert (hit.line, hit.words) == (11, "says nothing")

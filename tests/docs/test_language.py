"""Plain English: no banned phrase in the pages, and never more of them in a file of the package.

The phrases, each with its reason and better words, are in tests/language.py. `python tests/language.py` lists
every hit by file and line. `language_allowance.json` has the number of hits that a file of the package may
have; when a file has fewer, `python tests/language.py --write` makes the table shrink.
"""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest
from language import ALLOWANCE, COMMENTED, PHRASES, PROSE, Hit, Phrase, all_hits, found_in, hits, python_texts

FOUND = sorted(all_hits())
ALLOWED: dict[str, int] = json.loads(ALLOWANCE.read_text())


def told(found: list[Hit]) -> str:
    return "".join(f"\n{hit}" for hit in found)


@pytest.mark.parametrize("phrase", PHRASES, ids=[phrase.foreign for phrase in PHRASES])
def test_every_phrase_finds_its_example_and_passes_the_better_words(phrase: Phrase) -> None:
    assert re.search(found_in(phrase), phrase.foreign)
    assert list(hits(phrase.plain, "", 1)) == [], "the better words are banned too"


def test_the_pages_and_the_files_for_ci_have_none() -> None:
    found = [hit for hit in FOUND if not hit.file.startswith("vqdoctor/")]
    assert found == [], told(found)
    assert not [file for file in ALLOWED if file in (*PROSE, *COMMENTED)]


def test_no_file_of_the_package_has_more_than_its_allowance() -> None:
    counts = Counter(hit.file for hit in FOUND)
    over = {file for file, count in counts.items() if count > ALLOWED.get(file, 0)}
    found = [hit for hit in FOUND if hit.file in over]
    assert not over, f"say it in plain English: {told(found)}"


def test_the_allowance_shrinks_with_the_hits() -> None:
    counts = Counter(hit.file for hit in FOUND)
    stale = {file: (allowed, counts[file]) for file, allowed in ALLOWED.items() if counts[file] < allowed}
    assert stale == {}, "run `python tests/language.py --write`: (allowed, found)"


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

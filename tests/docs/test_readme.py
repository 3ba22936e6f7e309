"""README's tables and its demo are what the code says today."""

from readme import README, filled


def test_the_generated_parts_are_fresh():
    text = README.read_text()
    assert filled(text) == text, "run `python tests/readme.py`"

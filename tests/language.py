"""Phrases that are correct English and still foreign, and their places in the project.

`python tests/language.py` lists every hit by file and line.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pages import PAGES, handwritten

ROOT = Path(__file__).parents[1]
PROSE = (*PAGES, "CONTRIBUTING.md", "CHANGELOG.md", "sample_checkpoints/README.md")
"""Pages whose handwritten text is searched."""
COMMENTED = ("Makefile", "action.yml", ".pre-commit-hooks.yaml", ".ci/run", ".github/workflows/test.yml")
"""Files that are searched whole, code included."""


@dataclass(frozen=True, kw_only=True)
class Phrase:
    """A banned phrase.

    Attributes:
        pattern: a regular expression over one sentence.
        why: the reason.
        foreign: an example that it finds.
        plain: the same in better words, in which it finds nothing.
    """

    pattern: str
    why: str
    foreign: str
    plain: str


NOBODY = r"(?:nothing|nobody|none|no one)"
TELL = r"(?:tells?|told|knows?|says?|gives?|shows?)"
NOUN = "the clause has no noun: name the thing"
BETWEEN = (
    r"(?: (?!(?:but|so|or|and|nor|which|that|who|if|where|when|as|because|for|than|whether|until|unless|once|"
    r"it|is|are|was|has|does|do|costs?|can|may)\b)[\w'`-]+){0,4}"
)
"""At most four words, without a verb or a conjunction that begins another clause."""
TWICE = "a double negation: say what is true"

PHRASES = (
    Phrase(
        pattern=rf"(?i)\b{NOBODY} (?:else )?{TELL}\b",
        why="an absent subject: say what is unknown or missing",
        foreign="where nothing tells the weight",
        plain="if the weight is unknown",
    ),
    Phrase(
        pattern=r"(?i)\b(?:says?|said|tells?|told|knows?|shows?|proves?) nothing\b",
        why="an absent object: say what is missing, or that there is no effect",
        foreign="--max-drop says nothing without --baseline",
        plain="--max-drop has no effect without --baseline",
    ),
    Phrase(
        pattern=r"(?i)\b(?:where|which) (?:nothing|nobody|none)\b",
        why="a clause about nothing: name the thing that is missing",
        foreign="kinds of which nothing is known",
        plain="kinds without any evidence",
    ),
    Phrase(
        pattern=r"(?i)\bthe doubts? (?:of|about|in)\b|\bin doubt of\b",
        why="the field's noun is uncertainty or interval",
        foreign="in the doubt of both",
        plain="within the uncertainty of both",
    ),
    Phrase(
        pattern=r"(?i)\btells? (?:more )?of\b|\btold of\b|\bspeaks? of\b|\bhears? of\b",
        why="use a direct verb: describes, reports, shows",
        foreign="`explain CODE` tells more of one",
        plain="`explain CODE` describes one check",
    ),
    Phrase(
        pattern=r"(?i)\b(?:files?|reports?|batch(?:es)?|counts?|record|config|data|flags?|it|which|layers?|BATCH|"
        r"trained-vq-weight)(?: (?:does|do|can|will))?(?: ?not|cannot| alone| itself)? tells?\b(?! apart)",
        why="a file or a flag records, shows or gives something; only people tell",
        foreign="the file does not tell whether codes are replaced",
        plain="the file does not record whether codes are replaced",
    ),
    Phrase(
        pattern=r"(?i)\bwish(?:ed|es)?\b",
        why="an option is given or set",
        foreign="the weight that is wished for",
        plain="the weight that is set",
    ),
    Phrase(
        pattern=r"(?:^|[.:;] +)What (?!is wrong\b)(?![^.?]*\?)",
        why=NOUN,
        foreign="What identifies it between two runs.",
        plain="The identity between two runs.",
    ),
    Phrase(
        pattern=r"(?:^|[.;] +)(?:That which|Those (?:that|who|of|with|which)|That of|Who(?:ever)?\b|Whose)",
        why=NOUN,
        foreign="Those that are far too large are clipped.",
        plain="Gradients that are far too large are clipped.",
    ),
    Phrase(
        pattern=r"(?i)\b(?:lists?|names?|shows?|say|says|are|is|of|the messages? \w+|and|or|but|than|in|from|"
        r"for|with|on|against|as) those (?:that|which|who|it)\b",
        why=NOUN,
        foreign="the message lists those that are",
        plain="the message lists the known layers",
    ),
    Phrase(
        pattern=r"(?:^|[.] +)(?:Return|Yield|Record|Refuse|Gather|Give|Save|Apply|Collect|Clear|Write|Keep|"
        r"Hold|Take|Put|Fill in|Drop) (?:again |back )?(?:what|who|that of|those)\b",
        why=NOUN,
        foreign="Return what a gate decided.",
        plain="Return the gate's decision.",
    ),
    Phrase(
        pattern=r"(?i)\bwhat (?:becomes?|became|comes?|came|follows|is|was|are|were) (?:of|out|what|from)\b",
        why=NOUN,
        foreign="what became of one check on one layer",
        plain="the outcome of one check on one layer",
    ),
    Phrase(
        pattern=r"(?i)\b(?<!say )(?<!see )(?<!of )(?<!not )(?<!at )(?<!know )(?:what|which) "
        r"(?:it|they|that|this) (?:comes?|amounts?) to\b|\bwhat (?:that|it) comes to\b",
        why="an idiom for a result: name the result",
        foreign="the findings, and what that comes to",
        plain="the findings, and the verdict",
    ),
    Phrase(
        pattern=r"(?i)(?<!there )\b(?:is|are|was|were|be) no (?!longer|more\b|less\b|fewer|worse|better|"
        r"larger|smaller|lower|higher|evidence|other|part|way|room)[\w-]+",
        why="negate the verb: is not a",
        foreign="abc is no finite number",
        plain="abc is not a finite number",
    ),
    Phrase(
        pattern=r"(?i)\b(?:cannot|can|could|may) (?:not )?be(?=[.;,:)]|$)",
        why="the participle is missing: is not allowed, cannot be used",
        foreign="if a value cannot be; the message says why",
        plain="if a value is not allowed; the message says why",
    ),
    Phrase(
        pattern=r"(?i)\bnot un(?!less|til|der|ique|it|iform|ion|derst|expected)\w+",
        why=TWICE,
        foreign="a name that is not unknown",
        plain="a known name",
    ),
    Phrase(
        pattern=r"(?!None)\b(?:(?i:no|nothing|nobody|none|never|without (?:either|it|them|this))\b"
        rf"{BETWEEN} (?:without|(?<!to )nothing|nobody|none|never|not)|(?i:cannot|not){BETWEEN} "
        r"(?:nothing|nobody|none|never|not))\b(?! (?:only|yet|VQ|--|\())",
        why=TWICE,
        foreign="no code stays without a vector",
        plain="every code has a vector",
    ),
    Phrase(
        pattern=r"(?i)\bnothing but\b|\bnone but\b|\bbut for\b",
        why="say only, or except",
        foreign="it switches nothing but the flag",
        plain="it switches only the flag",
    ),
    Phrase(
        pattern=r"(?i)\bmend(?:s|ed|ing)?\b",
        why="one word for one thing: fix, repair or correct",
        foreign="errors that the user can mend",
        plain="errors that the user can fix",
    ),
    Phrase(
        pattern=r"(?i), for (?:it|they|there|he|we|you|this|these|a|an|the|its|GitHub|no) (?:[\w'-]+ ){0,3}"
        r"(?:is|are|was|were|has|have|does|do|can|cannot|may|shows?|needs?|will|would|runs?)\b",
        why="as a conjunction 'for' is archaic: use because",
        foreign="do not use it, for it is slow",
        plain="do not use it, because it is slow",
    ),
    Phrase(
        pattern=r"(?i)\bst(?:ands?|ood|anding) (?:in (?!for )|at |beside|outside|elsewhere|there|here|before|"
        r"between|together|on |off |where|after|behind|first|under)",
        why="things are somewhere; they do not stand: is, lies, follows",
        foreign="the codes stand elsewhere than the file says",
        plain="the codes are elsewhere than the file says",
    ),
    Phrase(
        pattern=r"(?i)\b(?:held|holds?|holding) (?:\w+ ){0,4}against\b",
        why="the field's verb is compare with",
        foreign="each figure is held against its limit",
        plain="each figure is compared with its limit",
    ),
    Phrase(
        pattern=r"(?i)\bis (?:told|heard|said)(?: (?:aloud|so|too))?(?=[.;,:)]|$)",
        why="name who reports to whom: is reported",
        foreign="what does not fit is cut off, and is told.",
        plain="the rest is cut off, and the report says so.",
    ),
    Phrase(
        pattern=r"(?i)\b(?:all|everything|something|anything|one) of what\b|\b(?:all|that) what\b",
        why=NOUN,
        foreign="all of what the file holds",
        plain="the whole content of the file",
    ),
    Phrase(
        pattern=r"(?i)\b(?:not|nor|neither) know(?:n)? (?:from|by) nowhere\b|\bfrom nowhere\b|\bby nothing\b|"
        r"\bof nothing\b|\bfor nothing\b|\bwith nothing\b",
        why="a preposition before nothing: negate the verb",
        foreign="the usage is known from nowhere",
        plain="the usage is unknown",
    ),
    Phrase(
        pattern=r"(?i)\bwhat (?:is|was|are) to (?:be )?\w+\b",
        why=NOUN,
        foreign="what is to be known of it",
        plain="a note on it",
    ),
    Phrase(
        pattern=r"(?i)\bhow (?:it|they|that|this) (?:lies?|stands?|came)\b",
        why="name the property: orientation, state, origin",
        foreign="the tensor, and how it lies",
        plain="the tensor, and its orientation",
    ),
    Phrase(
        pattern=r"(?i)\bso many\b(?! \w+ (?:that|as))",
        why="name the number",
        foreign="the number for a layer of so many codes",
        plain="the number for a layer of K codes",
    ),
    Phrase(
        pattern=r"(?i)\b(?:one|once|two|\d[\d,]*|many|most|vectors?|lines?|suite|case|file|value|number) "
        r"(?:(?!in|of|for|that|and|with|or|inside|is)\w+ )?a "
        r"(?:layer|command|piece|sample|code|batch|checkpoint|line|reason|family|kind|format|container|judgement|"
        r"epoch|step|image|position)\b",
        why="write per, or for each",
        foreign="16 vectors a code",
        plain="16 vectors per code",
    ),
    Phrase(
        pattern=r"(?i)\b(?:ailments?|clinics?|patients?|wards?)\b",
        why="the field's words: fault, examined model, fault bench",
        foreign="five ailments of one patient",
        plain="five faults of one examined model",
    ),
)


@dataclass(frozen=True, kw_only=True, order=True)
class Hit:
    """One foreign phrase in a file."""

    file: str
    line: int
    words: str
    why: str
    plain: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.words!r}: {self.why}; such as: {self.plain}"


def found_in(phrase: Phrase) -> str:
    """Return the pattern of a phrase over line ends: a blank in it is any white space."""
    return phrase.pattern.replace(" ", r"\s")


def hits(text: str, file: str, line: int) -> Iterator[Hit]:
    """Yield the foreign phrases of a text that begins at that line."""
    for phrase in PHRASES:
        for found in re.finditer(found_in(phrase), text):
            yield Hit(
                file=file,
                line=line + text.count("\n", 0, found.start()),
                words=" ".join(found[0].split()),
                why=phrase.why,
                plain=phrase.plain,
            )


def prose(text: str) -> Iterator[tuple[int, str]]:
    """Yield (line offset, paragraph) of a docstring or a page, without its code blocks and headings."""
    text = re.sub(r"^```.*?^```", lambda m: "\n" * m[0].count("\n"), text, flags=re.MULTILINE | re.DOTALL)
    start, lines = 0, []
    item = re.compile(r"\s*([-*|]|\d+\.|\w+(, \w+)*:) ?")
    for number, line in enumerate([*text.splitlines(), ""]):
        new = not line.strip() or line.lstrip().startswith("#") or bool(item.match(line))
        if new and lines:
            yield start, "\n".join(lines)
            lines = []
        if line.strip() and not line.lstrip().startswith("#"):
            start = start if lines else number
            lines.append(re.sub(r"^\s*([-*|]|\d+\.|\w+(, \w+)*:(?= )) *", "", line) if new else line.strip())


def python_texts(source: str) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of every docstring and message; an f-string's values become "…"."""
    tree = ast.parse(source)
    inside = {
        id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = (p.value if isinstance(p, ast.Constant) else "…" for p in node.values)
            yield node.lineno, "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield from [(node.lineno, node.value)] if node.value.count(" ") >= 2 else []


def all_hits() -> Iterator[Hit]:
    """Yield the foreign phrases of the package, the pages and the files for CI."""
    for path in sorted((ROOT / "vqdoctor").rglob("*.py")):
        file = path.relative_to(ROOT).as_posix()
        for line, text in python_texts(path.read_text()):
            for offset, paragraph in prose(text):
                yield from hits(paragraph, file, line + offset)
    for page in PROSE:
        text = handwritten(page) if page in PAGES else (ROOT / page).read_text()
        for offset, paragraph in prose(text):
            yield from hits(paragraph, page, 1 + offset)
    for file in COMMENTED:
        for number, line in enumerate((ROOT / file).read_text().splitlines(), 1):
            yield from hits(line.strip(" #"), file, number)


if __name__ == "__main__":
    for hit in sorted(all_hits()):
        sys.stdout.write(f"{hit}\n")

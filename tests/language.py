"""Finds phrases that are read twice, and long sentences: ``python tests/language.py``.

`make lint` runs this over the package, the documentation, README, CONTRIBUTING and CHANGELOG. Each
phrase has a plain one to replace it. `ALLOWED` has the lines that may keep a phrase, with their
reasons. Sentences are those of the documentation and of the package's docstrings.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

TREE = Path(__file__).resolve().parent.parent
PLACES = (
    "redset/**/*.py", "redset/**/*.pyx", "redset/**/*.pxi", "redset/**/*.h", "redset/**/*.lua",
    "docs/**/*.rst", "README.md", "CONTRIBUTING.md", "CHANGELOG.md",
)  # fmt: skip
#: Pattern, and its replacement.
PHRASES = {
    r'"""(?:What|Where|That|Who|Whose|Whoever|Whatever)\b': (
        "begin with a verb (Return, Add, Raise) or a plain noun"
    ),
    r"(?:^|\s)(?:#:?|--) (?:What|Where|Who|Whose|Whoever|Whatever)\b": (
        "begin with a noun or a verb"
    ),
    r"^\s+What (?!an? |the )": "begin with a noun and its unit",
    r'"""(?:Gives?|Says?|Tells?)\b': "Return",
    r"\bfor ever\b": "forever, or: without a time limit",
    r"\bfor good\b": "say what happens: removed, not returned",
    r"\blikewise\b": "the same way",
    r"\bin vain\b": "say what failed",
    r"\bto be had\b": "there is, can be",
    r"\bbut for\b": "except for",
    r"\bfor want of\b": "without, for lack of",
    r"\bbehind\b": "after, for an order",
    r"\bmeanwhile\b": "name the time: during the call, while it is leased",
    r"\b(?:told|tells?)\b": "name the act: reports, returns, logs",
    r"\bsaid\b": "name the act: reported, returned, logged",
    r"\b(?:whoever|whomever|nobody|somebody)\b": "name who: a worker, a caller, another program",
    r"(?<!there )\b(?:is|are|was|were) no (?!longer|more)[a-z]": "is not a",
    r"\bsee to it\b": "say what is done",
}
#: File and a part of the line, and the reason for which the phrase may stay.
ALLOWED = {
    ("CONTRIBUTING.md", "core-table-loses-digests-behind-a-hole"): "the name of a planted fault",
    ("docs/retries.rst", "nobody"): "a telephone number of the example",
    ("redset/scrapy/jobs.py", "behind"): "an attribute",
    ("redset/scrapy/scheduler.py", ".behind"): "an attribute",
}
#: Words of a sentence.
LONGEST = 25
PROSE = ("docs/**/*.rst", "README.md", "CONTRIBUTING.md", "CHANGELOG.md")
CODE = ("redset/**/*.py", "redset/**/*.pyx", "redset/**/*.pxi")
#: Parts of docstrings that are not sentences: examples, literal blocks, tables, and the names above
#: a description, as of parameters.
NO_PROSE = (
    r"(?m)^ *>>> .*\n(?:.*\S.*\n)*",
    r"(?m)(?<=::\n)\n+( +)\S.*\n(?:\1.*\n|\n)*",
    r"(?m)^ *==+  .*\n(?:.*\S.*\n)*",
    r"(?m)^( *)[\w*{].*\n(?=\1 +\S)",
)


def found_in(text: str) -> Iterator[tuple[int, str]]:
    """Yield the line number of each phrase, and its remedy."""
    for number, line in enumerate(text.splitlines(), 1):
        for phrase, plain in PHRASES.items():
            match = re.search(phrase, line, re.IGNORECASE if phrase.islower() else 0)
            if match:
                yield number, f"{match[0].strip()!r}: {plain}"


def paragraphs(text: str) -> Iterator[tuple[int, str]]:
    """Yield the number of the first line, and the text, of each paragraph of prose.

    Code, directives, headings and drawings are left out. A bullet or a cell is a paragraph.
    """
    lines: list[str] = []
    first, margin, fenced = 0, -1, False
    for number, line in enumerate([*text.splitlines(), ""], 1):
        indent = len(line) - len(line.lstrip())
        fenced ^= line.lstrip().startswith("```")
        if margin >= 0 and line.strip() and indent <= margin:
            margin = -1
        begins = re.match(r"\s*(?:\* - |- |\* |\d+\. |\|)", line)
        ends = not line.strip() or begins or re.match(r"\s*(?:\.\. |#|:[\w-]+:|>>>|```)", line)
        if ends and lines:
            yield first, " ".join(lines)
            lines = []
        if re.match(r"\s*\.\. (?!list-table|note|warning)", line):
            margin = indent
        elif margin < 0 and not fenced and line.strip() and (begins or not ends):
            first = first if lines else number
            lines.append(line.strip().lstrip("*-| ") if begins else line.strip())


def docstrings(text: str) -> str:
    """Return the prose of a file's docstrings, each line at its place, and no other lines."""
    lines = [""] * text.count("\n")
    for match in re.finditer(r'"""(.*?)"""', text, re.DOTALL):
        prose = match[1]
        for skipped in NO_PROSE:
            prose = re.sub(skipped, lambda found: "\n" * found[0].count("\n"), prose)
        at = text.count("\n", 0, match.start())
        lines[at : at + match[1].count("\n") + 1] = prose.split("\n")
    return "\n".join(lines)


def long_in(text: str) -> Iterator[tuple[int, str]]:
    """Yield the line number of each paragraph with a long sentence, and the sentence."""
    for number, paragraph in paragraphs(text):
        if paragraph.startswith((">>>", "...")) or "|" in paragraph:
            continue
        plain = re.sub(r"``.*?``|`[^`]*`|\([^)]*\)|\[[^]]*\]", "x", paragraph)
        for sentence in re.split(r"(?<=[.?!:;])\s+", plain):
            words = re.findall(r"[^\s]*\w[^\s]*", sentence)
            if len(words) > LONGEST:
                yield number, f"a sentence of {len(words)} words: {' '.join(words[:8])} ..."


def files(places: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for place in places:
        for path in sorted(TREE.glob(place)):
            if "_build" not in path.parts:
                yield path.relative_to(TREE).as_posix(), path.read_text("utf-8")


def found() -> Iterator[str]:
    for name, text in files(PLACES):
        lines = text.splitlines()
        for number, wrong in found_in(text):
            if not any(name == file and part in lines[number - 1] for file, part in ALLOWED):
                yield f"{name}:{number}: {wrong}"
    prose = [*files(PROSE), *((name, docstrings(text)) for name, text in files(CODE))]
    for name, text in prose:
        for number, wrong in long_in(text):
            yield f"{name}:{number}: {wrong}"


if __name__ == "__main__":
    problems = list(found())
    good = f"none of {len(PHRASES)} phrases that are read twice, and no long sentence"
    print("\n".join(problems) or good)
    sys.exit(1 if problems else 0)

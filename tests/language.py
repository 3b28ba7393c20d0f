"""Finds phrases that are read twice: ``python tests/language.py``.

`make lint` runs this over the package, the documentation, README, CONTRIBUTING and CHANGELOG. Each
phrase has a plain one to replace it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

TREE = Path(__file__).resolve().parent.parent
PLACES = (
    "redset/**/*.py", "redset/*.pyx", "redset/**/*.lua", "docs/**/*.rst", "README.md",
    "CONTRIBUTING.md", "CHANGELOG.md",
)  # fmt: skip
#: Pattern, and its replacement.
PHRASES = {
    r'"""(?:What|Where|That|Who)\b': "begin with a verb (Return, Add, Raise) or a plain noun",
    r'"""Give\b': "Return",
    r"\bfor ever\b": "forever, or: without a time limit",
    r"\bfor good\b": "say what happens: removed, not returned",
    r"\blikewise\b": "the same way",
    r"\bin vain\b": "say what failed",
    r"\bto be had\b": "there is, can be",
}


def found_in(text: str) -> Iterator[tuple[int, str]]:
    """Yield the line number of each phrase, and its remedy."""
    for number, line in enumerate(text.splitlines(), 1):
        for phrase, plain in PHRASES.items():
            match = re.search(phrase, line, re.IGNORECASE)
            if match:
                yield number, f"{match[0]!r}: {plain}"


def found() -> Iterator[str]:
    for place in PLACES:
        for path in sorted(TREE.glob(place)):
            if "_build" not in path.parts:
                name = path.relative_to(TREE).as_posix()
                for number, wrong in found_in(path.read_text("utf-8")):
                    yield f"{name}:{number}: {wrong}"


if __name__ == "__main__":
    lines = list(found())
    print("\n".join(lines) or f"none of {len(PHRASES)} phrases that are read twice")
    sys.exit(1 if lines else 0)

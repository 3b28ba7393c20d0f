"""Makes redset/asyncio.py from redset/sets.py: ``python tools/asyncio_face.py``.

With ``--check`` it only compares the file with its output, as `make lint` does.

The asyncio face is the sync face on other base classes, awaited. redset/_faces/differences.py has
the differences of the two bases. The tables below have the other differences: names, types of
arguments, and passages of docstrings. An entry that is not used is an error.

The syntax tree decides which parts of the source change, in the code and in the examples of
docstrings. Everything between, with comments, stays as it is. ruff makes the layout.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

TREE = Path(__file__).resolve().parent.parent
SOURCE = TREE / "redset" / "sets.py"
MADE = TREE / "redset" / "asyncio.py"
#: Files of the asyncio bases. Their coroutine methods are awaited.
BASES = (TREE / "redset/_faces/differences.py", TREE / "redset/_faces/writer.py")
WIDTH = 100

HEAD = '''"""The asyncio face: SortedSet, TimeSortedSet and ScheduledSet with ``await``.

Made of redset/sets.py by tools/asyncio_face.py. Change that file, or the tables of the tool, and
run ``python tools/asyncio_face.py``.
"""'''

#: Names of the sync face, and of its twin.
NAMES = {
    "Batch": "AsyncBatch",
    "Iterator": "AsyncIterator",
    "Lock": "AsyncLock",
    "SyncFace": "AsyncFace",
    "SyncLeases": "AsyncLeases",
    "SyncView": "AsyncView",
    "ThreadWriting": "TaskWriting",
    "Writer": "AsyncWriter",
    "__enter__": "__aenter__",
    "__exit__": "__aexit__",
    "__iter__": "__aiter__",
    "close": "aclose",
}

#: Arguments that take more: the function, the argument, and its type.
STREAM = "Iterable[Any] | AsyncIterable[Any]"
ARGUMENTS = {
    ("ack", "add"): STREAM,
    ("add_many", "items"): STREAM,
    ("add_new", "items"): STREAM,
    ("consume", "handler"): "Callable[[T], Any]",
    ("isdisjoint", "other"): STREAM,
    ("restore", "lines"): "Iterable[str | bytes] | AsyncIterable[str | bytes]",
    ("update", "items"): STREAM,
}

#: Names on which methods are called: in the code, and in examples.
OWNERS = {"self", "owner", "SyncFace"}
EXAMPLES = {"batch", "jobs", "pages", "s", "writer"}
#: In examples: what is iterated with ``async for``, and what is entered with ``async with``.
ITERATED = {"add_new", "batch", "between", "dead", "export", "groups", "leased"}
ENTERED = {"buffered", "from_url", "lease"}

#: Passages of docstrings (of their examples, before these are awaited), by what they describe; of
#: the whole text under "". White space is any white space; a paragraph that gets too wide is filled
#: again.
PASSAGES: dict[str, dict[str, str]] = {
    "": {
        "import Callable, Iterable, Iterator": (
            "import AsyncIterable, AsyncIterator, Callable, Iterable"
        ),
        "redis.Redis, valkey.Valkey, or any client with ``execute_command``": (
            "redis.asyncio.Redis, valkey.asyncio.Valkey, or any with such a coroutine function"
        ),
    },
    "SortedSet": {
        "lowest score first. Constructing": """lowest score first; awaited.

    `redset.SortedSet` over an asyncio client, with the same names, arguments, results and errors.
    Methods are awaited, except for these:

    - `add_new`, `leased`, `export`, the set itself, `dead`, a batch and a view of `between` are
      iterated with ``async for``.
    - The set, `lock`, `lease` and `buffered` are entered with ``async with``; `lease` can be
      awaited, too.
    - `from_url`, `between` and `known` are called as they are. `close` is `aclose`.
    - ``len``, ``in``, ``bool``, ``for``, comparisons by order and in-place operators raise a
      TypeError that names the method to use.

    Encoding and decoding give other tasks a turn every few milliseconds. A cancelled call leaves no
    half-read connection in the client's pool. The server may have performed it: a cancelled `pop`
    or `take` may have removed the items that it would have returned, and loses them. A cancelled
    add may have added items. Adding again is safe.

    Constructing""",
        "shared by threads, and": "shared by the tasks of one event loop, and",
        '"first" in jobs, len(jobs)': 'jobs.contains("first"), jobs.size()',
    },
    "SortedSet.from_url": {
        "which `close` closes.": "which `aclose` closes; not awaited.",
        "``redis.Redis.from_url``": "``redis.asyncio.Redis.from_url``",
    },
    "SortedSet.pause": {"jobs.paused.why": "(await jobs.paused).why"},
    "SortedSet.paused": {"jobs.paused is None": "(await jobs.paused) is None"},
    "SortedSet.lock": {
        "``with jobs.lock": "``async with jobs.lock",
        "`redset.locks.Lock`": "`redset.locks.AsyncLock`",
    },
    "SortedSet.add_many": {
        "items : iterable The": "items : iterable or async iterable\n            The"
    },
    "SortedSet.buffered": {
        "returns at once; a thread": "waits for no reply; a task",
        "entered with ``with``": "entered with ``async with``",
    },
    "SortedSet.pop": {"`KeyboardInterrupt` ends it": "cancellation ends it"},
    "SortedSet.lease": {
        "At least once:": "Awaited, or entered with ``async with``. At least once:",
    },
    "SortedSet.ack": {
        "add : iterable Items": "add : iterable or async iterable\n            Items"
    },
    "SortedSet.consume": {
        "Handlers run in ``concurrency`` threads of their own. The caller's thread": (
            "Up to ``concurrency`` handlers run at a time, each in a task. The caller's task"
        ),
        "Takes an item; returns None, or an iterable of new items.": (
            "May be a coroutine function. Takes an item; returns None, or an iterable or "
            "asynchronous iterable of new items."
        ),
        "stop : threading.Event": "stop : asyncio.Event",
        "KeyboardInterrupt And any": "asyncio.CancelledError\n            And any",
        "the first interrupt logs that. A second interrupt does not wait.": (
            "the first one logs that. A second one cancels the handlers."
        ),
        "def crawl(page):": "async def crawl(page):",
    },
    "SortedSet.contains": {"; the same as ``item in s``": ""},
    "SortedSet.size": {"; the same as ``len(s)``": ""},
    "SortedSet.update": {
        "; the same as ``jobs |= items``": "",
        "iterable of items Another": "iterable or async iterable of items\n            Another",
    },
    "SortedSet.isdisjoint": {
        "iterable of items Another": "iterable or async iterable of items\n            Another",
    },
    "SortedSet.restore": {"lines : iterable of": "lines : iterable or async iterable of"},
    "SortedSet.close": {"``with`` calls": "``async with`` calls"},
    "Between": {"scores: iterate, count": "scores: ``async for``, count"},
    "Between.size": {"; the same as ``len()``": ""},
    "DeadLetters": {"iterate them, count": "``async for``, count"},
    "DeadLetters.size": {"; the same as ``len(jobs.dead)``": ""},
    "Batch": {
        "Entered with ``with``, it settles": (
            "It is awaited, or entered with ``async with``, before it is used; ``async for`` "
            "iterates it. Entered, it settles"
        ),
        "outside of ``with``": "outside of ``async with``",
    },
    "Writer": {
        "Entered with ``with``; leaving": (
            "Entered with ``async with``; its methods are awaited. Leaving"
        ),
        "number of threads": "number of tasks",
        "A writer that is still open when the interpreter ends is written first;": (
            "If its event loop is closed before it was left, the accepted items are written first;"
        ),
    },
}


def text_edits(text: str, edits: list[tuple[int, int, str]]) -> str:
    """Replace these parts of a text: beginning, end, and what to put there."""
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return text


def root_of(node: ast.expr) -> str:
    """Return the name that an expression begins with: ``jobs`` of ``jobs.dead.size()``."""
    while True:
        if isinstance(node, ast.Name):
            return node.id
        if isinstance(node, ast.Call):
            node = node.func
        elif isinstance(node, (ast.Attribute, ast.Subscript)):
            node = node.value
        else:
            return ""


def last_of(node: ast.expr) -> str:
    """Return the name that an expression ends with: ``size`` of ``jobs.dead.size()``."""
    if isinstance(node, ast.Call):
        node = node.func
    return getattr(node, "attr", getattr(node, "id", ""))


class Awaited:
    """The edits that make a piece of code that of the asyncio face."""

    def __init__(self, text: str, coroutines: set[str], owners: set[str], example: bool) -> None:
        self.text = text
        self.coroutines, self.owners, self.example = coroutines, owners, example
        self.edits: list[tuple[int, int, str]] = []
        #: Names and arguments that were of use.
        self.used: set[object] = set()
        self._lines = text.split("\n")
        self._starts = [0]
        for line in self._lines:
            self._starts.append(self._starts[-1] + len(line) + 1)
        tree = ast.parse(text)
        self._parents = {
            child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)
        }
        for node in ast.walk(tree):
            self._edit(node)

    def at(self, line: int, column: int) -> int:
        """Return the position, in characters, of a place that the syntax tree names in bytes."""
        within = self._lines[line - 1].encode()[:column].decode()
        return self._starts[line - 1] + len(within)

    def start(self, node: ast.AST) -> int:
        return self.at(node.lineno, node.col_offset)  # type: ignore[attr-defined]

    def end(self, node: ast.AST) -> int:
        return self.at(node.end_lineno, node.end_col_offset)  # type: ignore[attr-defined]

    def put(self, at: int, new: str) -> None:
        self.edits.append((at, at, new))

    def rename(self, start: int, name: str) -> None:
        if name in NAMES:
            self.used.add(name)
            self.edits.append((start, start + len(name), NAMES[name]))

    def is_awaited(self, node: ast.AST) -> bool:
        if not isinstance(node, ast.Call):
            return False
        if isinstance(node.func, ast.Name):
            return self.example and node.func.id in self.coroutines
        if not isinstance(node.func, ast.Attribute):
            return False
        named = node.func.attr in self.coroutines and root_of(node.func.value) in self.owners
        leased = self.example and node.func.attr == "lease"
        return named or (leased and not isinstance(self._parents[node], ast.withitem))

    def is_coroutine(self, node: ast.FunctionDef) -> bool:
        entered = node.name in ("__enter__", "__exit__")
        return entered or any(self.is_awaited(inner) for inner in ast.walk(node))

    def _edit(self, node: ast.AST) -> None:
        if self.is_awaited(node):
            within = isinstance(self._parents[node], (ast.Attribute, ast.Subscript))
            self.put(self.start(node), "(await " if within else "await ")
            if within:
                self.put(self.end(node), ")")
        if isinstance(node, ast.Attribute) and root_of(node) in self.owners:
            self.rename(self.end(node) - len(node.attr), node.attr)
        if self.example:
            self._edit_example(node)
        elif isinstance(node, ast.FunctionDef):
            self._edit_function(node)
        elif isinstance(node, ast.ClassDef):
            self.rename(self.start(node) + len("class "), node.name)
        elif isinstance(node, ast.Name):
            self.rename(self.start(node), node.id)
        elif isinstance(node, ast.alias) and node.name != "Iterator":  # see PASSAGES
            self.rename(self.start(node), node.name)

    def _edit_function(self, node: ast.FunctionDef) -> None:
        start = self.start(node)
        self.rename(start + len("def "), node.name)
        if self.is_coroutine(node):
            self.put(start, "async ")
        for argument in (*node.args.args, *node.args.kwonlyargs):
            kind = ARGUMENTS.get((node.name, argument.arg))
            if kind is not None and argument.annotation is not None:
                self.used.add((node.name, argument.arg))
                self.edits.append(
                    (self.start(argument.annotation), self.end(argument.annotation), kind)
                )

    def _edit_example(self, node: ast.AST) -> None:
        if isinstance(node, ast.With):
            if any(last_of(item.context_expr) in ENTERED for item in node.items):
                self.put(self.start(node), "async ")
        elif isinstance(node, ast.For):
            if last_of(node.iter) in ITERATED:
                self.put(self.start(node), "async ")
        elif isinstance(node, ast.comprehension):
            if last_of(node.iter) in ITERATED:
                self.put(self.text.rindex("for ", 0, self.start(node.target)), "async ")
        elif isinstance(node, ast.Call) and last_of(node) == "list" and node.args:
            self._edit_list(node)

    def _edit_list(self, node: ast.Call) -> None:
        if last_of(node.args[0]) in ITERATED:
            start = self.start(node)
            self.edits.append((start, start + len("list("), "[item async for item in "))
            self.edits.append((self.end(node) - 1, self.end(node), "]"))


def coroutines() -> set[str]:
    """Return the names of the methods that are awaited."""
    found = {
        node.name
        for path in BASES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.AsyncFunctionDef)
        and not any(isinstance(inner, ast.Yield) for inner in ast.walk(node))
    }
    text = SOURCE.read_text("utf-8")
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    while True:
        code = Awaited(text, found, OWNERS, False)
        more = {node.name for node in functions if code.is_coroutine(node)} - found
        if not more:
            return found
        found |= more


def docstrings(tree: ast.Module) -> Iterator[tuple[str, ast.Constant]]:
    """Yield each docstring, with the name of what it describes."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.Module)):
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                yield getattr(node, "name", ""), first.value
            if isinstance(node, ast.ClassDef):
                for inner in node.body:
                    if isinstance(inner, ast.FunctionDef):
                        inner.name = f"{node.name}.{inner.name}"


def awaited_examples(text: str, found: set[str]) -> str:
    """Await the calls in the examples of a docstring."""
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        if not lines[at].lstrip().startswith(">>> "):
            at += 1
            continue
        end = at + 1
        while end < len(lines) and lines[end].lstrip().startswith("... "):
            end += 1
        margin = len(lines[at]) - len(lines[at].lstrip()) + len(">>> ")
        source = "\n".join(line[margin:] for line in lines[at:end])
        code = Awaited(source, found, EXAMPLES, True)
        made = text_edits(source, code.edits).split("\n")
        lines[at:end] = [line[:margin] + new for line, new in zip(lines[at:end], made, strict=True)]
        at = end
    return "\n".join(lines)


def replaced(text: str, name: str, unused: set[tuple[str, str]]) -> str:
    """Replace the passages that a table has for a docstring."""
    for key in (name, ""):
        for old, new in PASSAGES.get(key, {}).items():
            pattern = r"\s+".join(map(re.escape, old.split()))
            if old.endswith(" "):
                pattern += r"\s+"
            text, number = re.subn(pattern, lambda _, new=new: new, text)
            if number:
                unused.discard((key, old))
    return text


def filled(text: str) -> str:
    """Fill those paragraphs of a docstring again that are too wide."""
    paragraphs = re.split(r"(\n *\n)", text)
    for place, paragraph in enumerate(paragraphs):
        lines = paragraph.split("\n")
        at = 0
        while at < len(lines):
            margin = lines[at][: len(lines[at]) - len(lines[at].lstrip())]
            end = at + 1
            while end < len(lines) and re.match(rf"{margin}\S", lines[end]):
                end += 1
            if max(map(len, lines[at:end])) > WIDTH and ">>> " not in lines[at]:
                said = " ".join(line.strip() for line in lines[at:end])
                lines[at:end] = textwrap.wrap(
                    said,
                    WIDTH,
                    initial_indent=margin,
                    subsequent_indent=margin,
                    break_long_words=False,
                    break_on_hyphens=False,
                )
                end = at + 1
                continue
            at = end
        paragraphs[place] = "\n".join(lines)
    return "".join(paragraphs)


def made() -> str:
    """Return the text of the asyncio face, before ruff lays it out."""
    text = SOURCE.read_text("utf-8")
    found = coroutines()
    code = Awaited(text, found, OWNERS, False)
    unused = {(name, old) for name, some in PASSAGES.items() for old in some}
    for name, node in docstrings(ast.parse(text)):
        start, end = code.start(node), code.end(node)
        said = HEAD
        if name:
            said = filled(awaited_examples(replaced(text[start:end], name, unused), found))
        code.edits.append((start, end, said))
    useless = {*NAMES, *ARGUMENTS} - code.used
    text = replaced(text_edits(text, code.edits), "", unused)
    if useless or unused:
        raise SystemExit(f"of no use in {SOURCE.name}: {sorted(map(str, useless | unused))}")
    return re.sub(r"(await .*)  # type: ignore\[no-any-return\]$", r"\1", text, flags=re.MULTILINE)


def laid_out(text: str) -> str:
    """Return the text as ruff lays it out."""
    command = [sys.executable, "-m", "ruff", "format", "--stdin-filename", str(MADE), "-"]
    done = subprocess.run(command, input=text.encode(), stdout=subprocess.PIPE, check=True)
    return done.stdout.decode()


def main(arguments: list[str]) -> int:
    text = laid_out(made())
    wide = [line for line in text.splitlines() if len(line) > WIDTH]
    if wide:
        print("too wide once awaited; break these up in redset/sets.py:", *wide, sep="\n")
        return 1
    if "--check" in arguments:
        if MADE.read_text("utf-8") != text:
            print("redset/asyncio.py is stale: run python tools/asyncio_face.py")
            return 1
        return 0
    MADE.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

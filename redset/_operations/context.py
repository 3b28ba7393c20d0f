"""Context of an operation: the parts of one set, and its steps as effects."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from redset._operations.codec import Codec
from redset._operations.keys import keys_of
from redset._operations.options import SetOptions
from redset._operations.replies import Reader, bytes_of, optional
from redset._operations.reporting import Reporter
from redset._operations.scores import Scores, ServerClock
from redset._operations.state import MemoryState, RemovalState, Sizes
from redset._transport.effects import Ask, Operation
from redset.exceptions import OptionsDiffer
from redset.scripts import Script, script


class Context:
    """One set, for its operations.

    Attributes
    ----------
    name : str or bytes
        The name as it was given.
    keys, options, codec, scores
        The parts of the set.
    memory, removals, sizes
        Facts about the server that the set's object has learned.
    reporter
        Counts what the calls do.
    """

    __slots__ = (
        "codec", "keys", "memory", "name", "options", "removals", "reporter", "scores", "sizes",
        "wire",
    )  # fmt: skip

    def __init__(
        self,
        wire: ModuleType,
        name: str | bytes,
        scorer: Any,
        serializer: Any,
        key: Any,
        options: SetOptions,
        group: Any = None,
    ) -> None:
        self.wire = wire
        self.name = name
        self.options = options
        self.keys = keys_of(name, options.keyed, bool(options.ties), options.grouped)
        self.sizes = Sizes()
        self.codec = Codec(wire, name, options, key, self.sizes, group)
        self.scores = Scores(wire, options.ties, options.due)
        self.memory = MemoryState(bool(options.remember and options.known_max))
        self.removals = RemovalState()
        self.reporter: Reporter
        self.use_scorer(scorer)
        self.codec.use_serializer(serializer)
        if options.marked:
            self.keys.check_prefix()

    def use_scorer(self, scorer: Any) -> None:
        """Take a scorer: a callable of the item, the name of a field, or None for 0."""
        self.codec.use_scorer(scorer)
        if type(scorer) is ServerClock:
            self.scores.clock = scorer

    def score_many(
        self, items: list[Any], score: float | None, scores: list[Any] | None
    ) -> list[float] | None:
        """Return the scores of items: given ones, else the scorer's. None for the server's time.

        Parameters
        ----------
        score : float or None
            One for all, checked.
        scores : list or None
            One for each, not checked.
        """
        wire, due, scorer = self.wire, self.options.due, self.codec.scorer
        if score is not None:
            return [score] * len(items)
        if scores is not None:
            found = [wire.to_score(each, due) for each in scores]
        elif type(scorer) is ServerClock:
            return None
        elif type(scorer) is float:
            found = [scorer] * len(items)
        else:
            found = [wire.score_of(item, scorer, due) for item in items]
        return [wire.whole_score(each) for each in found] if self.options.ties else found

    def of_serialised(self) -> Context:
        """Return a context for the same set whose items are results of `Codec.serialise`."""
        made = copy.copy(self)
        made.codec, made.memory = self.codec.of_serialised(), self.memory.of_writer()
        return made

    def step(
        self,
        name: str,
        reads: Reader[Any],
        rest: Sequence[Any] = (),
        keys: Mapping[str, bytes] | None = None,
        resend: bool = True,
        **arguments: Any,
    ) -> Ask:
        """Make the effect that runs a script.

        Parameters
        ----------
        name : str
            The script's name.
        reads : Reader
            Reads the reply.
        rest : Sequence
            The values after the named arguments.
        keys : Mapping
            Its keys by name, if they differ from the set's keys that the script declares.
        resend : bool
            Whether the step may be sent again after its connection was lost.
        **arguments
            The declared arguments of the script.
        """
        step = script(name, self.options.grouped)
        request = self.request(step, arguments, rest, keys)
        return Ask(self.wire.encode(request), 1, step, resend, reads)

    def request(
        self,
        step: Script,
        arguments: Mapping[str, Any],
        rest: Sequence[Any] = (),
        keys: Mapping[str, bytes] | None = None,
    ) -> list[Any]:
        """Return the arguments of an EVALSHA, as `step` takes them."""
        names: Sequence[bytes]
        if keys is None:
            second = self.keys.prefix is not None
            names = step.keys_of(self.keys, second, self.options.marked, self.options.keyed)
        else:
            names = step.keys_given(keys)
        if self.options.grouped and "group_limit" in step.arguments.names:
            arguments = {**arguments, **self.options.grouping}
        values = step.arguments.values(arguments)
        return [b"EVALSHA", step.sha, len(names), *names, *values, *rest]

    def command(
        self, *arguments: bytes | str | int, reads: Reader[Any], resend: bool = True
    ) -> Ask:
        """Make the effect that performs a command. ``reads`` reads its reply."""
        return Ask(self.wire.encode(arguments), 1, None, resend, reads)

    def need_memory(self, argument: str) -> None:
        if not self.options.remember:
            raise ValueError(f"{argument} needs a set with remember=, and this one has none")

    def know_epoch(self) -> Operation[bytes | None]:
        """Return the memory's epoch, or None if the set has none. It is read once.

        Another thread may learn a later epoch during a step. The step keeps its own.
        """
        epoch = self.memory.epoch
        if epoch is None:
            stored = yield self.command(b"HGET", self.keys.meta, b"epoch", reads=optional(bytes_of))
            self.memory.epoch = epoch = stored or None
        return epoch

    def nothing(self) -> str:
        """Return the KeyError of an empty set."""
        name = self.name
        due = self.options.due
        return f"nothing is due yet in {name!r}" if due else f"the set {name!r} is empty"

    def tell_other_options(self, theirs: bytes) -> OptionsDiffer:
        return OptionsDiffer(
            f"the set {self.name!r} was made with {theirs.decode('utf-8', 'replace')}, "
            f"this object has {self.options.text}"
        )

    def tell_plain_items(self) -> OptionsDiffer:
        options = self.options
        lacks = "group=" if options.grouped else "key=" if options.keyed else "ties="
        return OptionsDiffer(
            f"this object has {options.text}, but the key {self.name!r} exists, or its "
            f"items are leased: a process without {lacks} writes to it, or it has items of an "
            "earlier version"
        )

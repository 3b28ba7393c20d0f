"""Every key name of a set."""

from __future__ import annotations


class Keys:
    """The keys of the set called ``name``; ``prefix`` is None where it can have no second key.

    ``queue`` is the sorted set of its members: with ``key=`` or ``ties=`` one that no process
    without the option reads.
    """

    __slots__ = ("name", "prefix", "queue")

    def __init__(self, name: bytes, keyed: bool, tied: bool) -> None:
        self.name = name
        self.prefix = _prefix(name)
        own = b"-".join([b"keyed"] * keyed + [b"tied"] * tied)
        self.queue = self._under(own) if own else name

    def _under(self, part: bytes) -> bytes:
        if self.prefix is None:
            raise ValueError(
                f"name {self.name!r} has braces but no valid hash tag, or is the prefix of another "
                "set's keys, so that no second key can be kept beside it: use a name without "
                "braces, or one like {tag}:name"
            )
        return self.prefix + b":" + part

    @property
    def items(self) -> bytes:
        return self._under(b"items")

    @property
    def meta(self) -> bytes:
        return self._under(b"meta")

    @property
    def seen(self) -> bytes:
        return self._under(b"seen")

    @property
    def leased(self) -> bytes:
        return self._under(b"leased")

    @property
    def leases(self) -> bytes:
        return self._under(b"leases")

    @property
    def calls(self) -> bytes:
        return self._under(b"calls")

    @property
    def dead(self) -> bytes:
        return self._under(b"dead")

    @property
    def none(self) -> bytes:
        """The key that never exists, which steps of several keys name.

        In a slot that moves key by key, such a step is then refused whole. Removals of nothing are
        performed on it, to learn whether the user may remove.
        """
        return self._under(b"none")

    @property
    def lock(self) -> bytes:
        return self.name + b"__lock"

    @property
    def fixed(self) -> list[bytes]:
        """The keys that ``clear`` unlinks in one step, whatever the set's options."""
        names = (
            b"keyed", b"tied", b"keyed-tied", b"items", b"leased", b"leases", b"calls", b"dead",
        )  # fmt: skip
        return [self.name, *(self._under(name) for name in names)]


def _prefix(name: bytes) -> bytes | None:
    # Redis hashes what stands between the first { and the first } after it, where that is not
    # empty; a name without such a tag is hashed whole (cluster specification, "Hash tags").
    start = name.find(b"{")
    if start >= 0:
        end = name.find(b"}", start)
        # jobs:{jobs} is the prefix of the set called jobs.
        tag = name[start + 1 : max(end, start)]
        return name if tag and name != _prefix_of(tag) else None
    if b"}" in name:
        return None
    return _prefix_of(name)


def _prefix_of(name: bytes) -> bytes:
    return name + b":{" + name + b"}"

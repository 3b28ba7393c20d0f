"""The interface of serializers."""

from __future__ import annotations

from typing import Any

__all__ = ("Serializer",)


class Serializer:
    """The interface of serializers, and an optional base class.

    A serializer is any object that has ``dumps``, ``loads`` or both, such as the module `json`. A
    method that a subclass does not define counts as missing. Without ``dumps`` items are stored as
    they are without a serializer. Without ``loads`` they come out as str.

    Attributes
    ----------
    binary : bool, optional
        Type of the argument of ``loads``: bytes if it is True, text if it is False. This class does
        not define it. Without it ``loads`` receives text, and bytes if they are not UTF-8 or if
        ``loads`` raised on the text.

    Examples
    --------
    >>> class Upper(Serializer):
    ...     def dumps(self, obj):
    ...         return str(obj).upper()
    >>> Upper().dumps("a")
    'A'
    >>> Upper().loads("A")
    Traceback (most recent call last):
        ...
    NotImplementedError: Upper defines no loads
    """

    def loads(self, data: Any) -> Any:
        """Return the item of stored bytes.

        Parameters
        ----------
        data : bytes or str
            The result of ``dumps``, as bytes or as text (see ``binary``).

        Returns
        -------
        object
            The item.

        Raises
        ------
        Exception
            Any exception makes the member undecodable: `redset.SortedSet.pop` and
            `redset.SortedSet.take` keep it as a dead letter. ``MemoryError``, ``OSError`` and
            ``ImportError`` do not.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no loads")

    def dumps(self, obj: Any) -> str | bytes:
        """Return the bytes that are stored for an item.

        Unless the set has a ``key``, items with equal bytes are one item. So equal items must have
        equal bytes.

        Parameters
        ----------
        obj : object
            The item.

        Returns
        -------
        str or bytes
            The stored bytes. A str is stored as UTF-8.

        Raises
        ------
        Exception
            Any exception makes the item a bad one. It is not sent.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no dumps")

"""The interface of serializers."""

from __future__ import annotations

from typing import Any

__all__ = ("Serializer",)


class Serializer:
    """A guideline for serializers, and a base class for those who like one.

    A serializer need not be a subclass: any object will do that has ``dumps``
    and ``loads``, or one of them (the module `json`, for one). In a subclass, a
    method that is inherited from here undefined counts as absent: without
    ``dumps`` items are stored as they would be without a serializer, without
    ``loads`` they come out as str.

    Attributes
    ----------
    binary : bool, optional
        What ``loads`` is given: True for the stored bytes, False for their text.
        Not defined here. If a serializer does not say, ``loads`` gets the text,
        and the bytes if they are not UTF-8 or if ``loads`` raised on the text.

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
        """Make the item of what was stored.

        Parameters
        ----------
        data : bytes or str
            What ``dumps`` returned; which of the two, ``binary`` says.

        Returns
        -------
        object
            The item.

        Raises
        ------
        Exception
            Whatever is raised makes the member an undecodable one: `redset.SortedSet.pop` and
            `redset.SortedSet.take` keep it as a dead letter.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no loads")

    def dumps(self, obj: Any) -> str | bytes:
        """Make of an item what is to be stored.

        It is the stored bytes that make two items one (unless the set has a
        ``key``), so equal items have to give equal bytes.

        Parameters
        ----------
        obj : object
            The item.

        Returns
        -------
        str or bytes
            What is stored; a str is stored as UTF-8.

        Raises
        ------
        Exception
            Whatever is raised makes the item a bad one, which is not sent.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no dumps")

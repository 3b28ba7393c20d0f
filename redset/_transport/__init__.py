"""Performs the effects of operations on the user's client. It does not know sets."""

from typing import TYPE_CHECKING

from redset import _lazy

if TYPE_CHECKING:
    from redset._transport import cluster as cluster
    from redset._transport import generic as generic
    from redset._transport import redirecting as redirecting
    from redset._transport import waiter as waiter
else:
    __getattr__ = _lazy.modules(
        __name__,
        "cluster",
        "generic",
        "redirecting",
        "waiter",
    )

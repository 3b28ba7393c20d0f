"""Every operation of a set, once, as a generator that does no I/O.

An operation yields effects (`redset._transport.effects`) and receives their results. The transport
performs them, with and without ``await``. An operation does not know the client.
"""

from typing import TYPE_CHECKING

from redset import _lazy

if TYPE_CHECKING:
    from redset._operations import algebra as algebra
    from redset._operations import dead as dead
    from redset._operations import glancing as glancing
    from redset._operations import groups as groups
    from redset._operations import known as known
    from redset._operations import leasing as leasing
    from redset._operations import memory as memory
    from redset._operations import operating as operating
    from redset._operations import reading as reading
    from redset._operations import settling as settling
    from redset._operations import skipping as skipping
    from redset._operations import streaming as streaming
    from redset._operations import taking as taking
    from redset._operations import transfer as transfer
else:
    __getattr__ = _lazy.modules(
        __name__,
        "algebra",
        "dead",
        "glancing",
        "groups",
        "known",
        "leasing",
        "memory",
        "operating",
        "reading",
        "settling",
        "skipping",
        "streaming",
        "taking",
        "transfer",
    )

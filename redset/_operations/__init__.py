"""Every operation of a set, once, as a generator that does no I/O.

An operation yields effects (`redset._transport.effects`) and receives their results. The transport
performs them, with and without ``await``. An operation does not know the client.
"""

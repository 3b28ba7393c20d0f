"""Every operation of a set, once, as a generator that does no I/O.

An operation yields effects (`redset._transport.effects`) and is sent what came of them; the
transport's drivers perform them, with and without ``await``. It knows no client.
"""

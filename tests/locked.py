"""``python tests/locked.py FILE COMMAND``: run a command while no other one has this lock file.

Two runs of make in one tree must not create one environment at the same time. The lock is the
kernel's, on the open file. The command becomes this process and inherits that file, as do its
children. So the lock ends with the last of them, however they end. A killed run leaves no lock, and
a child that outlives it keeps the next run waiting. Any Python runs this file: the Makefile checks
the version only later.
"""

import os
import sys


def main(path, *command):
    try:
        import fcntl
    except ImportError:  # Windows
        pass
    else:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (IOError, OSError):  # noqa: UP024  (two errors in Python 2)
            sys.stderr.write(path + ": another process has the lock; waiting for its end\n")
            sys.stderr.flush()
            fcntl.flock(lock, fcntl.LOCK_EX)
        fcntl.fcntl(lock, fcntl.F_SETFD, 0)  # the command inherits it
    os.execvp(command[0], command)


main(*sys.argv[1:])

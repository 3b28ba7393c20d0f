"""``python -m redset``: the command ``redset``."""

from __future__ import annotations

import sys

from redset.cli import main

if __name__ == "__main__":
    sys.exit(main())

"""Runs the benchmarks: ``python -m benchmarks``."""

import sys

from benchmarks import memory

sys.exit(memory.main())

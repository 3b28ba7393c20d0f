"""Marks that several files of tests use."""

from __future__ import annotations

import os

import pytest

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="os.fork: not on this platform")

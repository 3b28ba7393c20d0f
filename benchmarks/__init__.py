"""Measurements of redset, each a module to be run: ``python -m benchmarks.memory``."""

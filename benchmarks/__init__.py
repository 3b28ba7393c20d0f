"""Measures redset against its peers: ``python -m benchmarks``; `memory` runs alone, too."""

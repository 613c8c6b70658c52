"""Measurements of the harness beside its peers: ``python -m benchmarks --help``.

A part is a module with ``measure(options) -> Part``. Each runs in a fresh process; its sides take
turns. See docs/benchmarks.md for what came out.
"""

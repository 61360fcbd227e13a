"""Measures the worker against a hand-written floor and the naive way: ``python -m bench``. Not part of the wheel."""

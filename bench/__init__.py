"""``python -m bench`` measures the worker against a hand-written floor and the naive way. Not part of the wheel."""

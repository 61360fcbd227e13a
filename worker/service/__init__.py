"""The use-cases: they own the transactions and the order of effects."""

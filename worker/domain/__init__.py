"""Accounts, tokens, the meaning of Microsoft's answers and the rules. Pure: no I/O, clock or randomness."""

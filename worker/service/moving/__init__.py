"""Accounts on their way in from files and other products, and on their way out."""

"""Servers and scripts for development, tests and the demo. A deployment uses none of them."""

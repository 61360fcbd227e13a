"""Servers and scripts for development, tests and the demo; nothing in here belongs into a deployment."""

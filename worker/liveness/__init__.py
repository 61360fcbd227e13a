"""Proof that beat and the workers live: heartbeats for the fleet to see, and watchdogs that end what hangs."""

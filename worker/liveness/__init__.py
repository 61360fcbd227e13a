"""Proof that beat and the workers live: heartbeats for the fleet to see, from the loops that do the work."""

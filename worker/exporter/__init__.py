"""Prometheus metrics of the whole fleet, from the state of the stores: ``token-worker exporter``.

The exporter only reads Postgres, Redis and the broker, and has no key. It sees dead workers, and consumers that refresh
by themselves. A family of metrics is absent, never 0, while the store that it comes from does not answer.
"""

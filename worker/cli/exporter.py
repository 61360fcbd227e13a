"""The command that serves metrics."""

import click

from worker.domain.errors import ConfigurationError
from worker.observability import logging

_PORT = 9808  # of no other program of the fleet


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65_535), default=_PORT, show_default=True, help="0 takes a free one.")
def exporter(host: str, port: int) -> None:
    """Serve metrics for Prometheus: /metrics, /healthz, /readyz.

    Needs WORKER_DATABASE_URL, WORKER_REDIS_URL and WORKER_BROKER_URL if you set it; no key and no client secret. It
    only reads. The metrics show no address, but how many accounts there are: keep the port private.
    """
    try:
        from worker.exporter.process import serve  # noqa: PLC0415 - other commands need no web server
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("prometheus_client"):
            raise
        msg = "prometheus-client is not installed: pip install 'token-refresh-worker[exporter]'"
        raise ConfigurationError(msg) from None
    from worker.settings import ExporterSettings, load  # noqa: PLC0415 - see worker.cli.services

    settings = load(ExporterSettings)
    logging.configure(level=settings.log_level, log_format=settings.log_format)
    serve(settings, host=host, port=port, ready=lambda url: click.echo(f"Metrics: {url}/metrics"))


COMMANDS: tuple[click.Command, ...] = (exporter,)

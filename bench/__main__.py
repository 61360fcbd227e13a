"""``python -m bench throughput|reads|scale|memory|shape|all``; see docs/benchmarks.md."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click

from bench import parts, report
from bench.sizes import FULL, QUICK, Sizes

_PARTS: dict[str, Callable[[Sizes], list[report.Line]]] = {
    "throughput": parts.throughput,
    "reads": parts.reads,
    "scale": parts.scale,
    "memory": parts.memory,
    "shape": parts.shape,
}


@click.command(help=__doc__)
@click.argument("part", type=click.Choice([*_PARTS, "all"]))
@click.option("--quick", is_flag=True, help="Small sizes, to prove that everything runs. The figures mean nothing.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A size, see bench/sizes.py.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the figures into this file as well.")
@click.option("--write", is_flag=True, help="Put the table and the plot into docs/. Needs all parts in full sizes.")
def main(part: str, settings: tuple[str, ...], json_file: Path | None, *, quick: bool, write: bool) -> None:
    if write and (part != "all" or quick or settings):
        raise click.UsageError("--write is for all parts in full sizes: without --quick and --set")
    try:
        sizes = (QUICK if quick else FULL).given(settings)
        if write:
            report.frame()  # so that an error comes now and not after half an hour
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    chosen = _PARTS if part == "all" else {part: _PARTS[part]}
    if write:
        chosen = {**chosen, "shape": partial(parts.shape, draw=True)}
    lines: list[report.Line] = []
    for name, measure in chosen.items():
        begin = time.monotonic()
        found = measure(sizes)
        if quick:  # the figures mean nothing
            found = [line.without_target() for line in found]
        click.echo(f"{name}, {time.monotonic() - begin:.0f} s\n")
        click.echo("\n".join([*report.table(found), ""]))
        lines += found
    if json_file:
        json_file.write_text(report.as_json(lines) + "\n")
    if write:
        report.write(lines)


if __name__ == "__main__":
    main()

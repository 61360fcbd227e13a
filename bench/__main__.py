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
@click.option("--quick", is_flag=True, help="Small sizes: proves that everything runs, measures nothing.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A size, see bench/sizes.py.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the figures here as well.")
@click.option("--write", is_flag=True, help="Put the table and the plot into docs/.")
def main(part: str, settings: tuple[str, ...], json_file: Path | None, *, quick: bool, write: bool) -> None:
    try:
        sizes = (QUICK if quick else FULL).given(settings)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    chosen = _PARTS if part == "all" else {part: _PARTS[part]}
    if write and "shape" in chosen:
        chosen = {**chosen, "shape": partial(parts.shape, draw=True)}
    lines: list[report.Line] = []
    for name, measure in chosen.items():
        begin = time.monotonic()
        found = measure(sizes)
        missed = [f"{line.part}, {line.figure}: {line.value:.3g}" for line in found if line.met is False]
        verdict = "; ".join(missed) if missed else "nothing"
        click.echo(f"{name}: {time.monotonic() - begin:.0f} s, missed: {verdict}", err=True)
        lines += found
    click.echo("\n".join(report.table(lines)))
    click.echo(report.as_json(lines))
    if json_file:
        json_file.write_text(report.as_json(lines) + "\n")
    if write:
        report.write(lines)


if __name__ == "__main__":
    main()

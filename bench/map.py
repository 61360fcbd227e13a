"""``python -m bench.map`` prints the size of the product, the figures of its main calls, and those of its prose.

bench/trace.py defines the figures of a call, bench/prose.py those of the prose.
"""

import ast
import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import click

from bench import report
from bench.prose import FREE_RELATIVE, NO_ACTOR, sentences
from bench.site import ROOT
from bench.trace import PRODUCT, Trace, is_product
from bench.ways import traces

DOCUMENT = ROOT / "docs" / "architecture.md"

# A parameter whose annotation contains only these names configures an object. Every other one is a collaborator.
_PLAIN = frozenset(
    {
        "bool",
        "bytes",
        "datetime",
        "float",
        "frozenset",
        "int",
        "Mapping",
        "Path",
        "Sequence",
        "str",
        "timedelta",
        "tuple",
    }
)


@click.command(help=__doc__)
@click.option(
    "--write",
    type=click.Path(path_type=Path),
    is_flag=False,
    flag_value=DOCUMENT,
    help=f"Put the figures into a document, between its two markers. The default is docs/{DOCUMENT.name}.",
)
def main(*, write: Path | None) -> None:
    try:
        if write:
            report.frame(write, target="map")  # before anything is started
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    paths = [path for path in sorted(PRODUCT.rglob("*.py")) if is_product(str(path))]
    text = [*ways(traces()), "", *size(paths)]
    click.echo("\n".join(text))
    if write:
        report.splice(text, write, target="map")


def ways(found: Mapping[str, Trace]) -> list[str]:
    """The figures of each call, and the types that it makes, in Markdown."""
    rows = [
        (name, *map(str, (each.calls, each.functions, each.modules, each.depth, len(each.types))))
        for name, each in found.items()
    ]
    return [
        *report.aligned([("call", "calls", "functions", "modules", "deepest stack", "types"), *rows]),
        "",
        *(f"* {name}: {', '.join(f'`{each}`' for each in trace.types) or 'none'}" for name, trace in found.items()),
    ]


def size(paths: Sequence[Path]) -> list[str]:
    """The figures of the product as a whole, in Markdown."""
    number, name = largest_constructor(paths)
    found = [each for path in paths for each in sentences(path)]
    words = sum(each.words() for each in found)
    broken = Counter(rule for each in found for rule in each.broken())
    lines = sum(path.read_bytes().count(b"\n") for path in paths)
    return report.aligned(
        [
            ("product (worker/ without devkit)", "figure"),
            ("modules", f"{len(paths):,}"),
            ("lines", f"{lines:,}"),
            ("largest constructor", f"{number} collaborators: `{name}`"),
            ("words of comments and docstrings", f"{words:,}"),
            *(
                (f"{rule}, sentences per 1,000 words", f"{1000 * broken[rule] / words:.1f}")
                for rule in (FREE_RELATIVE, NO_ACTOR)
            ),
            ("measured with Python", platform.python_version()),
        ]
    )


def largest_constructor(paths: Iterable[Path]) -> tuple[int, str]:
    """The most collaborators that an ``__init__`` takes by keyword only, and its class. Dataclasses do not count."""
    trees = (ast.parse(path.read_text()) for path in paths)
    classes = (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    return max(
        (sum(not _is_plain(each) for each in node.args.kwonlyargs), owner.name)
        for owner in classes
        for node in owner.body
        if isinstance(node, ast.FunctionDef) and node.name == "__init__"
    )


def _is_plain(parameter: ast.arg) -> bool:
    named = ast.walk(parameter.annotation) if parameter.annotation else ()
    return {node.id for node in named if isinstance(node, ast.Name)} <= _PLAIN


if __name__ == "__main__":
    main()

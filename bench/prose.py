"""``python -m bench.prose`` finds sentences that break the rules of CONTRIBUTING.md, and exits with 1 if there are any.

It reads comments and docstrings of Python files and the text of Markdown files (of CHANGELOG.md the unreleased part).
Code spans and fenced blocks are left out. ``[tool.prose]`` in pyproject.toml names the paths and the allowed phrases.
"""

import ast
import io
import re
import sys
import tokenize
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click

ROOT = Path(__file__).parents[1]

FREE_RELATIVE, NO_ACTOR = "begins with a free relative", "names no actor"
_RULES = {
    # Headings and rows of tables begin with their marker, so they do not match. A question may begin like this.
    FREE_RELATIVE: re.compile(r"[\s\d\"'(*_.-]*(?:who|what|whose)\b(?!.*\?\W*$)", re.IGNORECASE),
    NO_ACTOR: re.compile(r".*\b(?:(?:some|no|every|any)body|(?:who|what)ever)\b", re.IGNORECASE),
    "says tell for log, raise or return": re.compile(r".*\b(?:tell|tells|told)\b", re.IGNORECASE),
    "is poetic": re.compile(
        r".*\b(?:luck|wish|wishes|wished|fruit|farewell|goodbye|patience|dice|mend|mends|mended"
        r"|(?:bring|brings|brought|come|comes|came|way) home)\b",
        re.IGNORECASE,
    ),
}

_CODE = re.compile(r"(`+).+?\1", re.DOTALL)
_DIRECTIVE = re.compile(r"(?:noqa|type: ignore)[^ ]*(?: [A-Z]+\d+,?)*(?: - )?")
_FENCE = re.compile(r"^ *(```|~~~).*?^ *\1 *$", re.DOTALL | re.MULTILINE)
_UNRELEASED = re.compile(r"^## \[?Unreleased.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)
_STARTS = re.compile(r"\s*(?:[*+-] |\d+\. |[#|>])")  # a list item, heading, row of a table or quotation
_SENTENCE = re.compile(r"\S.*?(?:[.!?][\"')*_]*(?=\s+[\"'(*_]*[A-Z`])|\Z)", re.DOTALL)
_WORD = re.compile(r"[A-Za-z][\w'-]*")

Lines = Iterable[tuple[int, str]]


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence and the line where it begins."""

    path: Path
    line: int
    text: str

    def broken(self, allowed: Iterable[str] = ()) -> list[str]:
        """The rules that it breaks."""
        prose = _CODE.sub("``", self.text)
        for phrase in allowed:
            prose = prose.replace(phrase, "")
        return [rule for rule, pattern in _RULES.items() if pattern.match(prose)]

    def words(self) -> int:
        return len(_WORD.findall(self.text))


def sentences(path: Path) -> Iterator[Sentence]:
    """The sentences of a file. Raises SyntaxError if it is Python and does not parse."""
    text = path.read_text()
    for lines in _python(text) if path.suffix == ".py" else _markdown(text, path.name):
        for passage in _passages(lines):
            joined = "\n".join(line for _, line in passage)
            for found in _SENTENCE.finditer(joined):
                line = passage[0][0] + joined.count("\n", 0, found.start())
                yield Sentence(path, line, " ".join(found.group().split()))


def files(paths: Iterable[Path]) -> list[Path]:
    """The Python and Markdown files at or below the paths."""
    below = (each for path in paths for each in ([path] if path.is_file() else path.rglob("*")))
    return sorted(each for each in below if each.suffix in {".py", ".md"})


def _python(text: str) -> Iterator[Lines]:
    """Each comment at the end of a line, the other comments together, and each string that is a statement."""
    block = list[tuple[int, str]]()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.COMMENT:
            continue
        comment = token.start[0], _DIRECTIVE.sub("", token.string.lstrip("#: "))
        if token.line.lstrip().startswith("#"):
            block.append(comment)
        else:
            yield [comment]
    yield block
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield enumerate(node.value.value.splitlines(), node.lineno)


def _markdown(text: str, name: str) -> Iterator[Lines]:
    if name == "CHANGELOG.md":
        found = _UNRELEASED.search(text)
        text = "\n" * text.count("\n", 0, found.start()) + found.group() if found else ""
    yield enumerate(_FENCE.sub(lambda fence: "\n" * fence.group().count("\n"), text).splitlines(), 1)


def _passages(lines: Lines) -> Iterator[list[tuple[int, str]]]:
    """Lines that belong together, without a gap, an empty line or the start of a list item or table row in between."""
    passage = list[tuple[int, str]]()
    for number, line in lines:
        if passage and (number != passage[-1][0] + 1 or not line.strip() or _STARTS.match(line)):
            yield passage
            passage = []
        if line.strip():
            passage.append((number, line))
    if passage:
        yield passage


def check(root: Path = ROOT) -> Iterator[str]:
    """A line for each rule that a sentence below ``root`` breaks."""
    settings = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["prose"]
    for path in files(root / each for each in settings["paths"]):
        for sentence in sentences(path):
            for rule in sentence.broken(settings["allowed"]):
                yield f"{path.relative_to(root)}:{sentence.line}: {rule}: {sentence.text}"


def main() -> None:
    found = list(check())
    click.echo("\n".join([*found, f"prose: {len(found)} found"]))
    sys.exit(bool(found))


if __name__ == "__main__":
    main()

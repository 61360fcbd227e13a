"""Sentences that break the rules of writing, in comments, docstrings and Markdown."""

from pathlib import Path

import pytest

from bench.prose import FREE_RELATIVE, NO_ACTOR, Sentence, check, files, sentences

TELLS, POETIC = "says tell for log, raise or return", "is poetic"


def broken(text: str, *allowed: str) -> list[str]:
    return Sentence(Path("x.md"), 1, text).broken(allowed)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("What Microsoft answers is shared.", FREE_RELATIVE),
        ("who asks gets a token", FREE_RELATIVE),
        ("* **Whose mailbox it is,** Microsoft decides.", FREE_RELATIVE),
        ("Nobody notices.", NO_ACTOR),
        ("A row that somebody has changed stays.", NO_ACTOR),
        ("It works for whoever asks.", NO_ACTOR),
        ("The operator is told once.", TELLS),
        ("`status` tells which.", TELLS),
        ("Another process may have more luck.", POETIC),
        ("The outbox comes\nhome with the next sweep.".replace("\n", " "), POETIC),
    ],
)
def test_sentence_breaks_one_rule(text: str, rule: str) -> None:
    assert broken(text) == [rule]


@pytest.mark.parametrize(
    "text",
    [
        "The worker writes what Microsoft answers.",
        "What happens if Redis is down?",
        "**Who may call it?**",
        "## What a row holds",
        "| what | where |",
        "`nobody` is the user that Postgres runs as.",
        "The ``wish`` of ``tell()`` is code.",
        "Home directories are not read.",
        "Whatsoever a storyteller foretold in Somebodyville.",
    ],
)
def test_sentence_breaks_no_rule(text: str) -> None:
    assert broken(text) == []


def test_sentence_may_break_several_rules() -> None:
    assert broken("What nobody was told takes patience.") == [FREE_RELATIVE, NO_ACTOR, TELLS, POETIC]


def test_allowed_phrase_is_no_excuse_for_the_rest() -> None:
    assert broken("You can tell the user.", "tell the user") == []
    assert broken("You can tell the user what you were told.", "tell the user") == [TELLS]


def found(path: Path, text: str) -> list[tuple[int, str]]:
    path.write_text(text)
    return sorted((sentence.line, sentence.text) for sentence in sentences(path))


def test_python_gives_comments_and_docstrings_and_no_code(tmp_path: Path) -> None:
    text = '''"""A module. It has
two sentences, version 1.2 of them.

* A list,
  item by item
"""

# A comment over
# two lines

LIMIT = 5  # seconds
# between
OTHER = 6  # noqa: S105 - minutes
NAME: str = "no prose"  # type: ignore[assignment]

class One:
    first = 1
    """An attribute."""

    def two(self) -> str:
        """A method.""" ; return "no prose either"  # Last
        # before the end
'''
    assert found(tmp_path / "module.py", text) == [
        (1, "A module."),
        (1, "It has two sentences, version 1.2 of them."),
        (4, "* A list, item by item"),
        (8, "A comment over two lines"),
        (11, "seconds"),
        (12, "between"),
        (13, "minutes"),
        (18, "An attribute."),
        (21, "A method."),
        (21, "Last"),
        (22, "before the end"),
    ]


def test_markdown_gives_paragraphs_items_rows_and_no_code_block(tmp_path: Path) -> None:
    text = """# Title

First line
goes on. **Second!** Third
```sh
make nobody  # is code
```
* item one
* item
  two
| a | b |
"""
    assert found(tmp_path / "page.md", text) == [
        (1, "# Title"),
        (3, "First line goes on."),
        (4, "**Second!**"),
        (4, "Third"),
        (8, "* item one"),
        (9, "* item two"),
        (11, "| a | b |"),
    ]


@pytest.mark.parametrize("heading", ["## [Unreleased]", "## Unreleased"])
def test_only_the_unreleased_part_of_changelog_is_read(tmp_path: Path, heading: str) -> None:
    text = f"# Changelog\n\n{heading}\n\n- New.\n\n### Fixed\n\n- Repaired.\n\n## [1.0.0]\n\n- Old.\n"
    assert [text for _, text in found(tmp_path / "CHANGELOG.md", text)] == [
        heading,
        "- New.",
        "### Fixed",
        "- Repaired.",
    ]
    assert found(tmp_path / "CHANGELOG.md", text)[1] == (5, "- New.")
    assert found(tmp_path / "CHANGELOG.md", "# Changelog\n\n## [1.0.0]\n\n- Old.\n") == []


def test_check_names_file_line_rule_and_sentence(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.prose]\npaths = ["a", "b.md"]\nallowed = ["told apart"]\n')
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "bad.py").write_text("x = 1\n# Fine. They are told apart.\n# It is told.\n")
    (tmp_path / "a" / "data.txt").write_text("Nobody reads this.\n")
    (tmp_path / "b.md").write_text("Whoever writes.\n")
    (tmp_path / "c.md").write_text("Nobody asks for this.\n")

    assert list(check(tmp_path)) == [
        f"a/bad.py:3: {TELLS}: It is told.",
        f"b.md:1: {NO_ACTOR}: Whoever writes.",
    ]
    assert files([tmp_path / "a"]) == [tmp_path / "a" / "bad.py"]

"""The cookbook's Python blocks, each a module named by its first line."""

import re
from pathlib import Path
from types import ModuleType

COOKBOOK = Path(__file__).parents[3] / "docs" / "cookbook.md"
_BLOCK = re.compile(r"^```python\n# (\w+)\.py.*?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def recipes() -> dict[str, str]:
    return {found[1]: found[2] for found in _BLOCK.finditer(COOKBOOK.read_text())}


def write(directory: Path) -> list[Path]:
    """Write all recipes as files."""
    paths = []
    for name, source in recipes().items():
        paths.append(directory / f"recipe_{name}.py")
        paths[-1].write_text(source)
    return paths


def module(name: str) -> ModuleType:
    """Run one recipe."""
    made = ModuleType(f"recipe_{name}")
    exec(compile(recipes()[name], f"{COOKBOOK.name}:{name}", "exec"), made.__dict__)
    return made

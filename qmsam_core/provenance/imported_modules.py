"""Find the modules of the library that a piece of code imports, directly or through other modules.

Imports inside functions count. A notebook that only trains need not rerun after a change to the export.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from pathlib import Path

from .files import sha256


def modules_reached(code: str, library: Path) -> list[Path]:
    """List the files of the package in folder `library` that `code` imports, directly or not, sorted.

    A package includes its `__main__`. Code that is not plain Python may import anything. All modules are then
    returned.
    """
    try:
        waiting = list(_imported(ast.parse(code), library, library.parent))
    except SyntaxError:
        return sorted(library.rglob("*.py"))
    reached: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path not in reached:
            reached.add(path)
            waiting += _imported(ast.parse(path.read_text(encoding="utf-8")), library, path.parent)
    return sorted(reached)


def modules_digest(code: str, library: Path, prefixes: tuple[str, ...]) -> str:
    """Return the SHA-256 over names and contents of the modules that `modules_reached` lists.

    Only modules count whose path in the library starts with one of `prefixes`.
    """
    reached = {path.relative_to(library).as_posix(): path for path in modules_reached(code, library)}
    listing = "".join(
        f"{name} {sha256(path)}\n" for name, path in reached.items() if name.startswith(prefixes)
    )
    return hashlib.sha256(listing.encode()).hexdigest()


def _imported(tree: ast.AST, library: Path, folder: Path) -> Iterator[Path]:
    """Files that one module's imports name. Relative imports start from `folder`, where the module lies."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _files(library.parent, alias.name.split("."), library)
        elif isinstance(node, ast.ImportFrom):
            start = folder if node.level else library.parent
            for _ in range(node.level - 1):
                start = start.parent
            names = node.module.split(".") if node.module else []
            for alias in node.names:  # each name may be a module
                yield from _files(start, [*names, alias.name], library)


def _files(start: Path, names: list[str], library: Path) -> Iterator[Path]:
    """Files of the library that run when the dotted name `names` is imported from the folder `start`."""
    place = start
    for name in [None, *names]:
        place = place / name if name else place
        found = (
            [place / "__init__.py", place / "__main__.py"] if place.is_dir() else [place.with_suffix(".py")]
        )
        yield from (path for path in found if path.is_relative_to(library) and path.is_file())

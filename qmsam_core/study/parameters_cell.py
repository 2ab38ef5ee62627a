"""The `parameters` cell of every notebook: its source, and the parameters a notebook took from it."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from qmsam_core.params import Params


def parameters_source() -> str:
    """The source of every notebook's `parameters` cell, one line for each key, as papermill inspects it."""
    rows = {name: f"{name} = {_literal(field.default)}" for name, field in Params.model_fields.items()}
    width = max(map(len, rows.values()))
    return "\n".join(
        f"{row:<{width}}  # {Params.model_fields[name].description}" for name, row in rows.items()
    )


def params_of(namespace: Mapping[str, Any], source: str = "parameters") -> Params:
    """Collect the parameters of a notebook from its `globals()`.

    A key that nobody declared is refused, which papermill only warns about. In a live notebook that is any
    name that a parameters cell assigns. Elsewhere it is any other plain value without a leading underscore.

    Args:
        namespace: the notebook's `globals()`.
        source: the name that opens each line of an error message.

    Raises:
        ParamsError: a key is unknown or a value impossible.
    """
    names = [name for name in Params.model_fields if name in namespace]
    return Params.check({name: namespace[name] for name in [*names, *_undeclared(namespace)]}, source)


def _literal(value: Any) -> str:
    return repr(list(value) if isinstance(value, tuple) else value).replace("'", '"')


def _undeclared(namespace: Mapping[str, Any]) -> list[str]:
    """Find names that were set as parameters and are none, as `papermill -p` with a typing slip sets them."""
    history = namespace.get("_ih")
    if isinstance(history, list):
        names = [name for source in history for name in _assigned_as_parameters(source)]
    else:
        plain = (bool, int, float, str, list, tuple, dict, type(None))
        names = [name for name, value in namespace.items() if isinstance(value, plain)]
    return [
        n
        for n in dict.fromkeys(names)
        if n in namespace and not n.startswith("_") and n not in Params.model_fields
    ]


def _assigned_as_parameters(source: str) -> list[str]:
    """The names that a cell assigns, if it is papermill's parameters cell or sets a declared key."""
    try:
        body = ast.parse(source).body
    except SyntaxError:  # a magic: no parameter cell
        return []
    targets = [t for statement in body if isinstance(statement, ast.Assign) for t in statement.targets]
    names = [target.id for target in targets if isinstance(target, ast.Name)]
    injected = source.startswith("# Parameters")
    return names if injected or not set(names).isdisjoint(Params.model_fields) else []

"""Describe what a result was made with: commit, package versions, the CPU's int8 and bf16 instructions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpuinfo import get_cpu_info

if TYPE_CHECKING:
    from pandas import DataFrame

CPU_FEATURES = {  # instructions for int8 and bf16 arithmetic; any one of the flags shows their presence
    "avx2": ("avx2",),
    "avx512": ("avx512f",),
    "vnni": ("avx512_vnni", "avx512vnni", "avx_vnni"),
    "amx": ("amx_int8", "amx_tile"),
    "bf16": ("avx512_bf16", "avx512bf16", "amx_bf16"),
}


class ProvenanceError(RuntimeError):
    """A run cannot be recorded: it is outside the project, or a declared output was never written."""


def project_root() -> Path:
    """Find the folder with `pyproject.toml` and `notebooks` here or above. Raises `ProvenanceError`."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "pyproject.toml").is_file() and (folder / "notebooks").is_dir():
            return folder
    raise ProvenanceError(
        f"{here}: not inside the project; run from the folder that holds pyproject.toml and notebooks/"
    )


def environment(threads: int | None = None) -> dict[str, Any]:
    """Describe the run: commit, dirty, versions, platform, cpu (model, cores, features), threads (as given).

    `commit` and `dirty` are None without git or a repository.
    """
    root = project_root()
    return {
        **_git_state(root),
        "versions": _versions(root),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "threads": threads,
    }


def environment_table() -> DataFrame:
    """Table 4 of the paper for this machine: columns item and value, with the paper's items."""
    import pandas as pd
    import psutil
    import torch

    facts, cuda = environment(), torch.cuda.is_available()
    cpu, versions = facts["cpu"], facts["versions"]
    features = [name for name in CPU_FEATURES if cpu[name]]
    items = {
        "System": facts["platform"],
        "CPU": f"{cpu['model']}, {cpu['cores']} cores "
        f"({', '.join(features) or 'none of ' + ', '.join(CPU_FEATURES)})",
        "RAM": f"{psutil.virtual_memory().total / 2**30:.0f}GB",
        "GPU": f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}" if cuda else "none used",
        "CUDA version": str(torch.version.cuda) if cuda else "none used",
        "Programming language": f"Python {versions['python']}",
        "Deep learning framework": f"PyTorch {torch.__version__}",
        "Specific dependencies": ", ".join(
            f"{name} {versions.get(name, 'not listed')}" for name in ("brevitas", "onnxruntime", "openvino")
        ),
        "Code": f"this project, commit {(facts['commit'] or 'unknown')[:10]}"
        f"{' with changes' if facts['dirty'] else ''}",
    }
    return pd.DataFrame(list(items.items()), columns=["item", "value"])


def _git_state(root: Path) -> dict[str, Any]:
    commit = _git(root, "rev-parse", "HEAD")
    changes = _git(root, "status", "--porcelain")
    return {"commit": commit or None, "dirty": None if changes is None else bool(changes)}


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):  # git is missing or hangs
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _versions(root: Path) -> dict[str, str]:
    """Installed versions of the packages in `requirements.txt`."""
    listed = root / "requirements.txt"
    names = re.findall(r"^([A-Za-z0-9_.-]+)", listed.read_text(), re.M) if listed.is_file() else []
    versions = {"python": platform.python_version()}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


@cache
def cpu_info() -> dict[str, Any]:
    """Return what py-cpuinfo finds, once per process: brand_raw, flags and more. Asking takes a second."""
    return get_cpu_info()


def _cpu() -> dict[str, Any]:
    info = cpu_info()
    flags = set(info.get("flags", ()))
    features = {name: not flags.isdisjoint(any_of) for name, any_of in CPU_FEATURES.items()}
    return {
        "model": info.get("brand_raw") or platform.processor() or "unknown",
        "cores": os.cpu_count(),
        **features,
    }

"""Remove a machine's folder paths and kernel build name from text that others will read."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qmsam_core.params import Params, folder_name

# paths below the top folders that may hold a user's files; not within a web address or a longer path
ABSOLUTE = re.compile(
    r"(?<![\w.~:/<-])/(?:home|Users|root|tmp|private|var|mnt|media|opt|srv|data|work|workspace|scratch|usr)"
    r"/[^\s\"'<>,;)&\\]+|\b[A-Z]:\\\\?\w+"
)
_EMBEDDED = re.compile(r"base64,[A-Za-z0-9+/=\s]+")
_KERNEL = re.compile(r"\bLinux-(\d+(?:\.\d+)*)-\S*?(x86_64|aarch64)")


class MachineNames:
    """Replace the absolute folders of one run by short names.

    A data folder becomes its last name, the project `.`, the outputs `outputs`, the environment `.venv`, the
    temporary folder `temporary` and the user's home `~`.

    Args:
        params: parameters of the run.
        run_dir: folder of the run, `<project>/<outputs>/<label>`.
    """

    def __init__(self, params: Params, run_dir: Path) -> None:
        outputs = run_dir.resolve().parent
        names = {
            str(outputs.parent): ".",
            str(outputs): "outputs",
            sys.prefix: ".venv",
            tempfile.gettempdir(): "temporary",
            str(Path.home()): "~",
        }
        if Path(params.outputs_root).is_absolute():
            names[params.outputs_root] = "outputs"
        names |= {root: folder_name(root) for root in params.data_roots.values()}
        ordered = sorted((name for name in names if len(name) > 1), key=len, reverse=True)
        self._names = names
        self._folders = re.compile(rf"(?<![\w.~:/-])({'|'.join(map(re.escape, ordered))})(?![\w.-])")

    def without(self, text: str) -> str:
        """Return the text with such folders replaced, and Linux kernels named by version and CPU only."""
        return _KERNEL.sub(r"Linux-\1-\2", self._folders.sub(lambda found: self._names[found[1]], text))

    def without_in(self, content: Any) -> Any:
        """Do the same for every string in nested lists and mappings, such as a `run.json`."""
        if isinstance(content, str):
            return self.without(content)
        if isinstance(content, Mapping):
            return {self.without(str(key)): self.without_in(value) for key, value in content.items()}
        return [self.without_in(value) for value in content] if isinstance(content, list) else content


def left_over(text: str) -> list[str]:
    """Return the absolute paths that a text still names. Pictures embedded in base64 are ignored."""
    return sorted({found[0] for found in ABSOLUTE.finditer(_EMBEDDED.sub("", text))})

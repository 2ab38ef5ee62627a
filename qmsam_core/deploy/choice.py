"""Choose how OpenVINO executes an export on this CPU, by measuring once.

Which precision is quickest depends on the CPU: with bf16 matrix units layers that are not int8 gain by the
bf16 hint, without VNNI the products of attention are quicker in float, and there may be CPUs on which a float
model beats an int8 one. An export that has the same model in float in its subfolder `float/` offers that too.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import openvino

from ..provenance.files import write_json
from .engines import ISA, has_bf16, settings_of
from .exported import FLOAT, export_digest, parts_in, read_export
from .ways import Way, random_inputs

ROUNDS = 5
MARGIN = 0.97
"""A way is taken instead of a plainer one if it needs at most this part of its time. Less is noise."""


@dataclass(frozen=True)
class Choice:
    """The quickest way found.

    Attributes:
        folder: the export to open: the one asked for, or its float sibling.
        ways: how each part is executed, by its name.
    """

    folder: Path
    ways: Mapping[str, Way]


def choose(
    folder: str | Path, threads: int, cache: str | Path, log: Callable[[str], object] = lambda line: None
) -> Choice:
    """Return the quickest way to run an export, from `cache`, or by measuring every way for some seconds.

    Each part (encoder, prepare, decoder for one box) is timed in each way by turns. The float export is taken
    if its parts together are quicker than those of the int8 one.

    Args:
        folder: an export.
        threads: threads for inference.
        cache: folder that keeps the measurement, one file for each export, CPU and number of threads.
        log: is told what is measured, and what was chosen over what.

    Raises:
        ExportError: the folder is no export or was changed since.
    """
    folder = Path(folder)
    exports = {"": read_export(folder)}
    if (folder / FLOAT / "export.json").is_file():
        exports[FLOAT] = read_export(folder / FLOAT)
    machine = {
        "cpu": openvino.Core().get_property("CPU", "FULL_DEVICE_NAME"),
        "capabilities": openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"),
        "held to": os.environ.get(ISA, ""),
        "openvino": openvino.__version__,
        "threads": threads,
        "exports": [export_digest(facts) for facts in exports.values()],
    }
    name = hashlib.sha256(json.dumps(machine, sort_keys=True).encode()).hexdigest()[:16]
    kept = Path(cache) / f"choice-{name}.json"
    milliseconds = _read(kept, exports)
    if milliseconds is None:
        log("measuring once how this CPU runs the model quickest, some seconds")
        milliseconds = {place: _measure(folder / place, facts, threads) for place, facts in exports.items()}
        _keep(kept, {**machine, "ms": milliseconds}, log)
    ways = {
        place: {part: _quickest(found) for part, found in parts.items()}
        for place, parts in milliseconds.items()
    }
    total = {
        place: sum(milliseconds[place][part][way] for part, way in found.items())
        for place, found in ways.items()
    }
    best = _quickest(total)
    places = sorted(total, key=lambda place: place != best)
    log("; not taken: ".join(_text(exports[place], ways[place], total[place]) for place in places))
    return Choice(folder / best, {part: Way.parse(way) for part, way in ways[best].items()})


def ways_of(facts: dict, part: str) -> list[Way]:
    """Return the ways in which a part of an export can be executed on this CPU."""
    hints = ("f32", "bf16") if has_bf16() else ("f32",)
    quantised = facts["recipe"] != "float" and part != "prepare"  # which has no product of activations
    return [Way(hint, products) for hint in hints for products in ((False, True) if quantised else (False,))]


def _quickest(times: Mapping[str, float]) -> str:
    """Return the name of the least time, but a name before it if that is within `MARGIN`."""
    least = min(times.values())
    return next(name for name, time in times.items() if MARGIN * time <= least)


def _measure(folder: Path, facts: dict, threads: int) -> dict[str, dict[str, float]]:
    """Time every part of an export in every way: milliseconds, the median of `ROUNDS` calls."""
    core, settings = openvino.Core(), settings_of(threads)
    found = {}
    for part in parts_in(facts):
        path = folder / f"{part}.xml"
        requests = {
            str(way): way.compile(core, path, settings).create_infer_request() for way in ways_of(facts, part)
        }
        found[part] = _by_turns(requests)
    return found


def _by_turns(requests: dict[str, openvino.InferRequest]) -> dict[str, float]:
    """Call each request `ROUNDS` times by turns, after one call that does not count: median milliseconds."""
    inputs = random_inputs(next(iter(requests.values())).model_inputs)
    times: dict[str, list[float]] = {name: [] for name in requests}
    for number in range(ROUNDS + 1):
        for name, request in requests.items():
            started = perf_counter()
            request.infer(inputs, share_inputs=True)
            if number:
                times[name].append((perf_counter() - started) * 1e3)
    return {name: float(np.median(values)) for name, values in times.items()}


def _read(path: Path, exports: Mapping[str, dict]) -> dict[str, dict[str, dict[str, float]]] | None:
    """Return the measurement kept in a file; None if there is none that can be used."""
    try:
        milliseconds = json.loads(path.read_text())["ms"]
        complete = all(set(milliseconds[place]) == set(parts_in(facts)) for place, facts in exports.items())
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return milliseconds if complete else None


def _keep(path: Path, measured: dict, log: Callable[[str], object]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, measured)
    except OSError as error:
        log(f"{path}: cannot be written ({error}), so the next start measures again; give --cache a folder")


def _text(facts: dict, ways: Mapping[str, str], total: float) -> str:
    """Say how an export runs, and how long an image and a box take."""
    if len(set(ways.values())) == 1:
        found = ways["encoder"]
    else:
        found = ", ".join(f"{part} {way}" for part, way in ways.items())
    return f"{'float' if facts['recipe'] == 'float' else 'int8'} ({found}) {total:.0f} ms an image and a box"

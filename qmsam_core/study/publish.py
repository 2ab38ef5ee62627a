"""Copy pages, tables, pictures and records of a finished run into a folder to be committed (a few MB).

    python -m qmsam_core.study.publish outputs/laptop -o outputs/reference/laptop
    python -m qmsam_core.study.publish --readme

The first command also renews the results in the README. The second does only that.

Pictures are linked, not embedded, and have 256 colours. A picture of real data is shared only if the data
folder's `SOURCES.md` states an open licence for all its cases. Their source is then named. Other pictures are
left out of the folder and of the reports. No file names a path of this machine.
"""

from __future__ import annotations

import argparse
import html
import io
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
import pandas as pd
from PIL import Image

from qmsam_core.data.licences import SOURCES, read_sources, source_of
from qmsam_core.params import DATA_ROOTS, Params, ParamsError
from qmsam_core.provenance.environment import ProvenanceError, project_root
from qmsam_core.provenance.files import sha256, write_json
from qmsam_core.study.freshness import read_record
from qmsam_core.study.index_page import Entry, index_html
from qmsam_core.study.machine_names import MachineNames, left_over
from qmsam_core.study.notebooks import NotebookError, find_notebooks, title_of
from qmsam_core.study.readme_results import ReadmeError, update_readme
from qmsam_core.study.report import FIGURE, REPORT, SHARED, report_html

KINDS = (*SHARED, ".html", ".json")  # of a notebook's outputs the tables and pictures are copied
Sources = dict[str, pd.DataFrame]
"""The tables of `read_sources`, by the parameter that names the data folder."""


class PublishError(RuntimeError):
    """A run cannot be published. The message has one line per problem."""


def publish(run_dir: Path, target: Path) -> list[Path]:
    """Make `target` the published copy of the finished run in `run_dir`, and return its files, sorted.

    The former content of `target` stays until the copy is complete and checked.

    Raises:
        PublishError: the run is unfinished or altered, `target` holds something else, a text still names a
            path of this machine, or a link leads nowhere.
        ParamsError: this version does not accept the run's parameters.
    """
    run_dir, target = run_dir.resolve(), target.resolve()
    names = [book.name for book in find_notebooks(project_root() / "notebooks")]
    records = {name: read_record(run_dir / name) for name in names}
    _check_finished(run_dir, records)
    _check_target(target)
    params = Params.check(records[names[0]]["parameters"], str(run_dir))
    sources = {name: read_sources(project_root() / root) for name, root in params.data_roots.items()}
    machine = MachineNames(params, run_dir)
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".publish", dir=target.parent) as scratch:
        copy = Path(scratch, "new")
        entries = [
            _notebook(run_dir / name, copy / name, record, sources, machine)
            for name, record in records.items()
        ]
        public = Params.check(machine.without_in(records[names[0]]["parameters"]), str(run_dir))
        (copy / "index.html").write_text(index_html(copy, public, entries, published=True), encoding="utf-8")
        _check_copy(copy)
        if target.exists():
            os.rename(target, Path(scratch, "old"))
        try:
            os.rename(copy, target)
        except OSError:
            if Path(scratch, "old").exists():
                os.rename(Path(scratch, "old"), target)
            raise
    return sorted(path for path in target.rglob("*") if path.is_file())


def _check_finished(run_dir: Path, records: dict[str, dict[str, Any]]) -> None:
    lines = []
    made = {
        f"{name}/{file}": digest
        for name, record in records.items()
        for file, digest in record.get("outputs", {}).items()
    }
    for name, record in records.items():
        folder = run_dir / name
        if not record or not (folder / "executed.ipynb").is_file() or (folder / "failed.ipynb").is_file():
            lines.append(f"{folder}: not finished; run the study to its end, then publish")
            continue
        if record["parameters"] != next(iter(records.values())).get("parameters"):
            lines.append(f"{folder}: made with other parameters than the first notebook; run the study again")
        lines += [
            f"{folder / file}: not as the notebook left it; run notebook {name} again"
            for file, digest in record["outputs"].items()
            if file.endswith(SHARED) and (not (folder / file).is_file() or sha256(folder / file) != digest)
        ]
        lines += [
            f"{folder}: read another {file} than the run holds now; run notebook {name} again"
            for file, digest in record["inputs"].items()
            if made.get(file, digest) != digest
        ]
    if lines:
        raise PublishError("\n".join(lines))


def _check_target(target: Path) -> None:
    foreign = (
        [path for path in target.rglob("*") if path.is_file() and path.suffix not in KINDS]
        if target.is_dir()
        else []
    )
    if (
        target.is_file()
        or foreign
        or (target.is_dir() and any(target.iterdir()) and not (target / "index.html").is_file())
    ):
        raise PublishError(
            f"{target}: holds something other than a published run "
            f"({foreign[0].name if foreign else 'no index.html'}); name another folder"
        )


def _notebook(
    source: Path, copy: Path, record: dict[str, Any], sources: Sources, machine: MachineNames
) -> Entry:
    """Copy one notebook's files, render its report anew, and return its entry in the index."""
    copy.mkdir(parents=True)
    figures = {item["file"]: {**item, **_permission(item, sources)} for item in record["figures"]}
    for name in (name for name in record["outputs"] if name.endswith(SHARED)):
        path = copy / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".csv"):
            path.write_text(machine.without((source / name).read_text(encoding="utf-8")), encoding="utf-8")
        elif not figures.get(name, _permission({}, sources)).get("withheld"):
            path.write_bytes(smaller((source / name).read_bytes()))
    book = nbformat.reads(
        machine.without((source / "executed.ipynb").read_text(encoding="utf-8")), as_version=4
    )
    _replace_pictures(book, figures, sources)
    title = title_of(book)
    files = sorted(path.name for path in copy.iterdir() if path.suffix in SHARED)
    (copy / REPORT).write_text(report_html(book, title, files), encoding="utf-8")
    shared = {**machine.without_in(record), "figures": list(figures.values())}
    write_json(copy / "run.json", shared)
    return Entry(source.name, title, "", shared)


def _permission(item: dict[str, Any], sources: Sources) -> dict[str, Any]:
    """Return why a picture is `withheld`, or the `credits` of its cases.

    The result is empty for plots and for phantoms, which are cases of no folder in `sources`.
    """
    if not sources or item.get("shows") == []:
        return {}
    if item.get("shows") is None:
        return {"withheld": "Not shown here: the notebook does not say which cases this picture shows."}
    places = {name: _folder_and_name(name) for name in item["shows"]}
    rows = {
        name: source_of(below, sources[folder])
        for name, (folder, below) in places.items()
        if folder in sources
    }
    closed = [name for name, row in rows.items() if row is None or not row["open"]]
    if closed:
        stated = [
            f"{name} ({'not named' if rows[name] is None else rows[name]['licence'] or 'none stated'})"
            for name in closed
        ]
        return {
            "withheld": "Not shown here: no open licence is stated in the data folder's "
            f"{SOURCES} for {', '.join(stated)}."
        }
    credit: dict[str, list[str]] = {}
    for name, row in rows.items():
        credit.setdefault(
            f"{row['source'] or row['pattern']}; licence as stated: {row['licence']}", []
        ).append(Path(name).stem)
    return {"credits": [f"{', '.join(cases)}: {source}" for source, cases in credit.items()]}


def _folder_and_name(shown: str) -> tuple[str, str]:
    """Split a case that `NotebookRun.figure` recorded into the data folder's parameter and its name."""
    folder, colon, name = shown.partition(":")
    return (folder, name) if colon and folder in DATA_ROOTS else ("data_root", shown)


def _replace_pictures(
    book: nbformat.NotebookNode, figures: dict[str, dict[str, Any]], sources: Sources
) -> None:
    """Replace each picture of an executed notebook by a link to its file, or say why it is withheld."""
    for cell in book.cells:
        named = iter(FIGURE.findall(cell.source))
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            embedded = "data:image" in "".join(data.get("text/html", ""))
            if not embedded and not any(kind.startswith("image/") for kind in data):
                continue
            item = {} if embedded else figures.get(f"{next(named, '')}.png", {})
            withheld = (item or _permission({}, sources)).get("withheld")
            if withheld:
                output.data = nbformat.from_dict(
                    {"text/html": f'<p class="withheld">{html.escape(withheld)}</p>'}
                )
            elif item:
                output.data = nbformat.from_dict({"image/png": ""})
                output.metadata = nbformat.from_dict({"filename": item["file"], "caption": item["caption"]})


def smaller(png: bytes) -> bytes:
    """Return a PNG on white with 256 colours, or the given one if that is not larger.

    Charts and small pictures lose nothing visible.
    """
    picture = Image.open(io.BytesIO(png)).convert("RGBA")
    picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    # Maximum coverage keeps the colours of thin lines on a grey picture.
    # Pillow dithers only if it is given a palette.
    palette = picture.quantize(256, method=Image.Quantize.MAXCOVERAGE, kmeans=3)
    stream = io.BytesIO()
    picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).save(stream, "PNG", optimize=True)
    return min(png, stream.getvalue(), key=len)


def dangling_links(folder: Path) -> Iterator[str]:
    """Yield `page: link` for every relative link or picture below `folder` whose file does not exist."""
    for page in sorted(folder.rglob("*.html")):
        for link in re.findall(r'(?:href|src)="([^"#?]+)[^"]*"', page.read_text(encoding="utf-8")):
            if not re.match(r"[a-z]+:|//", link) and not (page.parent / link).exists():
                yield f"{page.relative_to(folder)}: {link}"


def _check_copy(copy: Path) -> None:
    lines = [f"{line}: a link to nothing; this should not happen" for line in dangling_links(copy)]
    for path in (path for path in sorted(copy.rglob("*")) if path.suffix in KINDS and path.suffix != ".png"):
        lines += [
            f"{path.relative_to(copy)}: names a path of this machine, {left}; let the notebook not show it"
            for left in left_over(path.read_text(encoding="utf-8"))
        ]
    if lines:
        raise PublishError("\n".join(lines))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Return 0, or 2 if nothing was published or the README cannot be written."""
    parser = argparse.ArgumentParser(
        prog="python -m qmsam_core.study.publish",
        description="Publish a finished run, and renew the results in the README.",
    )
    parser.add_argument("run", nargs="?", type=Path, help="the run's folder, for example outputs/laptop")
    parser.add_argument("-o", "--output", type=Path, help="where to, for example outputs/reference/laptop")
    parser.add_argument("--readme", action="store_true", help="only renew the README from what is published")
    options = parser.parse_args(arguments)
    if (options.run is None) != options.readme or (options.run is None) != (options.output is None):
        parser.error("name a run and -o FOLDER, or --readme alone")
    try:
        if options.run:
            files = publish(options.run, options.output)
            print(
                f"{options.output}: {len(files)} files, {sum(path.stat().st_size for path in files):,} bytes"
            )
        root = project_root()
        if options.readme or options.output.resolve().parent == root / "outputs" / "reference":
            print(f"README.md: {'results renewed' if update_readme(root) else 'results as they were'}")
    except (PublishError, ParamsError, NotebookError, ProvenanceError, ReadmeError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Make HTML tables fit a page: align numbers, wrap texts, and group headers that share words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, pairwise

import pandas as pd
from bs4 import BeautifulSoup, Tag

from qmsam_core.evaluate.tables import DASH, rendered

MANY = 8
"""Tables with more columns are set in small type and may be wider than the text."""

NUMBER = re.compile(r"[+\-−]?[\d,]*\.?\d+(e[+-]?\d+)?( ?(%|×|x|points|ms|s|MB|GB))?")
NOTHING = {"", DASH, "-", "nan", "NaN", "None"}
BEFORE_UNIT = re.compile(r"(?<=\d) (?=(%|×|x|points|ms|s|MB|GB)(?!\w))")
LONG = {"th": 12, "td": 14}
"""Longer words in a header or a cell may break after a dot, a dash, a slash or the like."""
SOFT_HYPHEN = "\u00ad"

SOURCES = ("paper", "here")
PERCENT = " (%)"


def table_as_html(table: pd.DataFrame) -> str:
    """Render a table as HTML like the notebooks: shares in percent, a dash for missing values."""
    with pd.option_context("display.max_colwidth", None):
        return readable_tables(rendered(table).to_html(index=False, border=0, escape=True))


def readable_tables(html: str) -> str:
    """Return the HTML with its tables made to fit a page. The templates' style sheet does the rest.

    Text may wrap, numbers may not. Numeric columns are aligned to the right. Headings that neighbouring
    columns share are written once above them. Each table gets a container that scrolls on a narrow screen.
    """
    soup = BeautifulSoup(html, "html.parser")
    for style in soup.find_all("style", scoped=True):  # pandas' style aligns every header to the right
        style.decompose()
    for table in soup.find_all("table"):
        _make_readable(soup, table)
    return str(soup)


def grouped(names: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Group column names under the words that neighbours share: (heading, the rest of each name).

    `Stage 3 DSC paper` and `Stage 3 DSC here` go under `Stage 3`. If no arm has its two columns side by side,
    `stage 1 paper` and `stage 2 paper` go under `paper`. A column outside all groups has an empty heading.
    """
    words = [name.split() for name in names]
    arms = [tuple(each[:-1]) if each[-1:] and each[-1] in SOURCES else () for each in words]
    if sum(map(bool, arms)) < 4:
        return [("", [name]) for name in names]
    if any(arm and arm == other for arm, other in pairwise(arms)):
        shared = _shared_at_end([arm for arm in arms if arm])
        keys = [arm[: len(arm) - shared] for arm in arms]
    else:
        keys = [each[-1] if arm else () for each, arm in zip(words, arms, strict=True)]
    runs = groupby(zip(keys, words, strict=True), key=lambda pair: pair[0])
    return [group for key, run in runs for group in _under_heading(key, [each for _, each in run])]


def _under_heading(key: tuple[str, ...] | str, run: list[list[str]]) -> list[tuple[str, list[str]]]:
    """Group neighbours with the same key: an arm's first words, or the last word (`paper` or `here`)."""
    if not key:
        return [("", [" ".join(each)]) for each in run]
    if isinstance(key, tuple):
        return [(" ".join(key), [" ".join(each[len(key) :]) for each in run])]
    shared = _shared_at_end(run)
    heading = " ".join(run[0][-shared:])
    if run[0][0][:1].isupper():
        heading = heading[:1].upper() + heading[1:]
    return [(heading, [" ".join(each[:-shared]) for each in run])]


def _shared_at_end(rows: Iterable[Sequence[str]]) -> int:
    """Count the last words all rows share. Each row keeps one more word. Equal rows share at most one."""
    different = {tuple(row) for row in rows}
    shortest = min(map(len, different)) - 1
    if len(different) == 1:
        return min(1, shortest)
    return next((n for n in range(shortest, 0, -1) if len({row[-n:] for row in different}) == 1), 0)


def _make_readable(soup: BeautifulSoup, table: Tag) -> None:
    """Align, group and break the cells of one table, and put it into a container that scrolls."""
    head, body = (
        [row.find_all(["th", "td"]) for row in table.select(f"{part} > tr")] for part in ("thead", "tbody")
    )
    many = max(map(len, [*head, *body]), default=0) > MANY
    for tag in (table, *table.find_all("tr")):
        tag.attrs = {name: value for name, value in tag.attrs.items() if name not in ("border", "style")}
    for cells in _numeric_columns(head, body):
        for cell in cells:
            _mark(cell, "n")
        if many and len(head) == 1:
            _percent_to_header(cells)
    if len(head) == 1:
        _group_header(soup, table, head[0], body)
    for cell in table.select("th, td:not(.n)"):
        _let_break(soup, cell)
    box = table.wrap(soup.new_tag("div", attrs={"class": "table many" if many else "table"}))
    if table.caption:  # inside the table it would be as wide and scroll with it
        text = table.caption.extract().get_text()
        table["aria-label"] = text
        box.insert(0, soup.new_tag("p", attrs={"class": "caption"}, string=text))


def _numeric_columns(head: list[list[Tag]], body: list[list[Tag]]) -> Iterator[list[Tag]]:
    """Yield the cells of each column that holds only numbers, header cells first."""
    width = len(head[-1]) if head else 0
    for place in range(-1, -width - 1, -1):  # from the right: cells that span rows are missing on the left
        cells = [row[place] for row in body if len(row) >= -place and row[place].name == "td"]
        texts = [text for text in (cell.get_text(strip=True) for cell in cells) if text not in NOTHING]
        if texts and all(map(NUMBER.fullmatch, texts)):
            yield [row[place] for row in head if len(row) == width] + cells


def _percent_to_header(cells: list[Tag]) -> None:
    """Move the percent sign to the header if all numbers of a column have one. This saves room."""
    header, *rest = cells
    numbers = [cell for cell in rest if cell.get_text(strip=True) not in NOTHING]
    if all(cell.get_text().endswith(" %") for cell in numbers):
        header.string = f"{header.get_text()}{PERCENT}"
        for cell in numbers:
            cell.string = cell.get_text().removesuffix(" %")


def _group_header(soup: BeautifulSoup, table: Tag, cells: list[Tag], body: list[list[Tag]]) -> None:
    """Replace a header row by two rows if columns share words."""
    groups = grouped([cell.get_text().removesuffix(PERCENT) for cell in cells])
    if not any(heading for heading, _ in groups):
        return
    above, below, left = soup.new_tag("tr"), soup.new_tag("tr"), 0
    for heading, parts in groups:
        own = cells[left : left + len(parts)]
        if heading:
            spanning = {"class": "group edge", "colspan": len(parts)}
            above.append(soup.new_tag("th", attrs=spanning, string=heading))
            for cell in (own[0], *(row[left] for row in body if len(row) == len(cells))):
                _mark(cell, "edge")
            for cell, part in zip(own, parts, strict=True):
                cell.string = part + (PERCENT if cell.get_text().endswith(PERCENT) else "")
                below.append(cell.extract())
        else:
            own[0]["rowspan"] = 2
            above.append(own[0].extract())
        left += len(parts)
    table.thead.find("tr").replace_with(above, below)


def _let_break(soup: BeautifulSoup, cell: Tag) -> None:
    """Keep numbers with their units, and let long names of files and layers break, in headers also words."""
    for text in cell.find_all(string=True):
        pieces: list[str | Tag] = []
        for word in re.split(r"( +)", BEFORE_UNIT.sub("\u00a0", text)):
            if len(word) <= LONG[cell.name] or NUMBER.fullmatch(word):
                pieces.append(word)
            elif cell.name == "th" and word.isalpha():
                pieces.append(SOFT_HYPHEN.join(re.findall(r".{1,7}", word)))
            else:
                for part in re.findall(r"[\W_]*[^\W_]{1,16}[\W_]*|[\W_]+", word):
                    pieces += [part, soup.new_tag("wbr")]
        text.replace_with(*pieces)


def _mark(cell: Tag, name: str) -> None:
    cell["class"] = [*cell.get("class", []), name]

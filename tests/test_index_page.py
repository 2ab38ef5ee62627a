"""The index of a run: it loads nothing from the network, escapes text, and states the scale of the run."""

import re
from pathlib import Path

import pandas as pd
import pytest
from pages import loads_from_network

from qmsam_core.params import Params
from qmsam_core.study import index_page
from qmsam_core.study.index_page import PICTURES, Entry, front_pictures, scale_of, write_index
from qmsam_core.study.notebooks import find_notebooks
from qmsam_core.study.report import FIGURE
from qmsam_core.study.shown import Shown

PROJECT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({}, ["smoke profile: litemedsam at 64 px, phantoms", "machinery works, not the paper's result"]),
        ({"data_root": "x/pack"}, ["data from pack", "directions before the numbers"]),
        ({"validation_root": "x/public"}, ["phantoms, validated on public", "machinery works"]),
        (
            {"data_root": "x/pack", "model": "litemedsam", "image_size": 256},
            ["litemedsam at 256 px", "directions before the numbers"],
        ),
    ],
)
def test_scale_is_told(values, parts):
    for part in parts:
        assert part in scale_of(Params(**values))


def test_index(project):
    folder = project / "outputs" / "smoke" / "00_make"
    folder.mkdir(parents=True)
    pd.DataFrame({"modality": ["CT"], "dsc paper": [0.8935], "dsc here": [0.8]}).to_csv(
        folder / "table7.csv", index=False
    )
    (folder / "fig1.png").write_bytes(b"png")
    (folder / "report.html").touch()
    record = {
        "seconds": 12.3,
        "ended": "2024-01-01T00:00:00+00:00",
        "outputs": {"table7.csv": "", "fig1.png": "", "gone.csv": ""},
        "comparisons": [
            {"file": "table7.csv", "caption": "Table 7 <here>"},
            {"file": "gone.csv", "caption": "gone"},
        ],
        "figures": [{"file": "fig1.png", "caption": ""}],
        "environment": {
            "commit": "0123456789abcdef",
            "dirty": True,
            "cpu": {"model": "A CPU", "cores": 2, "vnni": True},
        },
    }
    entries = [Entry("00_make", "Make", "", record), Entry("01_read", "Read", "not run", {})]
    page = write_index(project, Params(), entries).read_text()
    assert loads_from_network(page) == [] and "<script" not in page
    for part in (
        "Table 7 &lt;here&gt;",
        "89.35 %",
        'href="00_make/report.html"',
        'src="00_make/fig1.png"',
        "not run",
        "A CPU",
        "vnni",
    ):
        assert part in page
    assert "0123456789ab with uncommitted changes" in page
    assert "gone" not in page and "machinery works" in page


COLUMNS = ["claim", "where", "paper", "here", "holds in the paper", "holds here"]


def index_of_claims(project, rows):
    folder = project / "outputs" / "smoke" / "10_beyond"
    folder.mkdir(parents=True)
    pd.DataFrame(rows, columns=COLUMNS).to_csv(folder / "claims.csv", index=False)
    record = {"comparisons": [{"file": "claims.csv", "caption": "Claims"}]}
    return write_index(project, Params(), [Entry("10_beyond", "Beyond", "", record)]).read_text()


def test_index_opens_with_where_paper_and_run_part(project):
    """A claim that the paper's own numbers deny is never an agreement. If it holds here, the two differ."""
    page = index_of_claims(
        project,
        [
            ["denied by both", "Table 7", "-0.39 points", "-0.96 points", "no", "no"],
            ["fast", "Table 5", "0.98x", "1.42x", "no", "yes"],
            ["new", "not shown", "not shown", "3", "not shown", "no"],
            ["new and open", "not shown", "not shown", "3", "not shown", "cannot be told"],
            ["even", "Table 7", "1", "2", "yes", "yes"],
            ["as good", "Table 9", "3", "4", "yes", "yes"],
            ["quick", "Table 8", "4.16x", "0.90x", "yes", "no"],
            ["enough", "Table 9", "+0.04 points", "-0.80 points", "yes", "cannot be told"],
            ["lost", "Table 9", "1", "not shown", "yes", "not shown"],
        ],
    )
    parts = [row.split("</td>")[0] for row in page.split('<tr class="parts">')[1:]]
    assert ["fast" in parts[0], "quick" in parts[1]] == [True, True]
    assert page.count('class="parts"') == 2
    assert page.index("quick") < page.index("Notebooks</h2>") < page.index("The run</h2>")


def test_index_shows_pictures_that_exist_and_withheld_ones_last(project):
    folder = project / "outputs" / "smoke" / "00_make"
    folder.mkdir(parents=True)
    for name in ("second.png", "third.png"):
        (folder / name).write_bytes(b"png")
    figures = [{"file": f"{name}.png", "caption": name} for name in ("first", "second", "gone", "third")]
    figures[0]["withheld"] = "Not shown here: no licence."
    page = write_index(project, Params(), [Entry("00_make", "Make", "", {"figures": figures})]).read_text()
    assert re.findall(r'<img src="([^"]*)"', page) == ["00_make/second.png", "00_make/third.png"]
    assert page.index("third.png") < page.index("Not shown here") and "gone" not in page


def test_index_before_anything_ran(project):
    assert "not run" in write_index(project, Params(), [Entry("00_make", "Make", "not run", {})]).read_text()


def index_of(project, files, **record):
    """Write an index of notebook 10 that has the files, by name, and the record."""
    folder = project / "outputs" / "smoke" / "10_beyond"
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return write_index(project, Params(), [Entry("10_beyond", "Beyond", "", record)]).read_text()


def test_readings_stand_beside_their_table_or_figure_and_others_are_listed(project):
    page = index_of(
        project,
        {"a.csv": b"x\n1\n", "b.png": b"png", "c.csv": b"x\n1\n"},
        comparisons=[{"file": "a.csv", "caption": "A table"}],
        figures=[{"file": "b.png", "caption": "A figure"}],
        readings={
            "a": ["The table <says> 3 ms.", "And more."],
            "b": ["The figure says."],
            "c": ["No caption."],
            "d": ["No file."],
        },
    )
    figures, tables = page.split('<h2 id="figures">')[1].split('<h2 id="tables">')
    beside = re.search(r'<p class="reads">(.*?)</p>\s*<div class="table">', tables, flags=re.S)[1]
    assert beside == "The table &lt;says&gt; 3\u00a0ms. And more."
    assert re.search(r'<p class="reads">The figure says.</p>\s*<a href="10_beyond/b.png"><img', figures)
    others = tables.split("What the other results say")[1]
    assert re.search(r'No caption\..*href="10_beyond/c.csv">csv', others)
    assert re.search(r"No file\. <span[^>]*>\(10_beyond, d\)", others)


def pictured(*paths):
    return [Shown(path.split("/")[0], path, path) for path in paths]


def test_a_picture_for_each_role_as_far_as_the_run_has_one():
    every = [path for paths in PICTURES.values() for path in paths]
    first = {role: paths[0] for role, paths in PICTURES.items()}
    last = {role: paths[-1] for role, paths in PICTURES.items()}
    for there, expected in ((every, first), (every[::-1], first), (last.values(), last), ([], {})):
        chosen = front_pictures(pictured(*there))
        assert {role: item.path for role, item in chosen.items()} == expected
    withheld = Shown("11_try_it", "11_try_it/typical.png", "x", withheld="no licence")
    assert front_pictures([withheld, *pictured("07_validation/fig2.png")])["Typical cases"].path.endswith(
        "fig2.png"
    )


def test_the_pictures_of_the_roles_are_figures_of_the_notebooks():
    """Else a renamed figure would be missed in silence."""
    books = {book.name: book for book in find_notebooks(PROJECT / "notebooks")}
    for path in (path for paths in PICTURES.values() for path in paths):
        assert Path(path).stem in FIGURE.findall(books[Path(path).parent.name].code), path


def test_the_answers_link_what_shows_them(project):
    """A table on the page, a table that a report shows, and one that is only a file."""
    folder = project / "outputs" / "smoke"
    for name in ("09_testing/summary.csv", "06_engine_speed/isa_gain.csv", "06_engine_speed/table5.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x\n1\n")
    (folder / "06_engine_speed" / "report.html").touch()
    record = {"comparisons": [{"file": "summary.csv", "caption": "Results"}]}
    entries = [Entry("09_testing", "T", "", record), Entry("06_engine_speed", "S", "", {"figures": []})]
    page = write_index(project, Params(), entries).read_text()
    assert '<a href="#09_testing/summary.csv">all models</a>' in page
    assert '<a href="06_engine_speed/report.html#isa_gain.csv">by instruction set</a>' in page
    assert "by modality" not in page  # the run has no such figure
    (folder / "06_engine_speed" / "report.html").unlink()
    assert 'href="06_engine_speed/isa_gain.csv">by' in write_index(project, Params(), entries).read_text()


@pytest.mark.parametrize("more", [True, False])
def test_a_claim_shows_its_interval_and_what_decides_it(project, more):
    columns = [*COLUMNS, *(["interval", "seen in"] if more else [])]
    rows = [
        ["even", "Table 7", "1 points", "+2 points", "yes", "yes", "+1.50 to +2.50", "10_beyond/fig.png"],
        [
            "gone",
            "Table 7",
            "1 points",
            "+2 points (+1 to +3)",
            "yes",
            "no",
            "+1 to +3",
            "10_beyond/gone.png",
        ],
    ]
    table = pd.DataFrame([row[: len(columns)] for row in rows], columns=columns)
    page = index_of(
        project,
        {"claims.csv": table.to_csv(index=False).encode(), "fig.png": b"png"},
        comparisons=[{"file": "claims.csv", "caption": "Claims"}],
        figures=[{"file": "fig.png", "caption": "A figure"}],
    )
    assert ("(+1.50 to +2.50)" in page) == more and ("<th>Seen in</th>" in page) == more
    assert ('<a href="#10_beyond/fig.png">fig</a>' in page) == more
    assert page.count("+1 to +3") == 1 and 'href="#10_beyond/gone.png"' not in page


def colours(css):
    """Return the colours that a style sheet declares, by name."""
    return {name: value for name, value in re.findall(r"--(\w+): (#[0-9a-f]{6})\b", css)}


def contrast(first, second):
    """Contrast of two colours as WCAG 2 defines it, 1 to 21."""
    light = []
    for colour in (first, second):
        parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        light.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(light) + 0.05) / (min(light) + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_text_is_legible_on_every_ground_light_and_dark(dark):
    css = (Path(index_page.__file__).parent / "templates" / "colours.css.j2").read_text()
    light, night = (colours(part) for part in css.split("@media screen"))
    assert {name for name in light if name != "mat"} == set(night)
    used = night if dark else light
    for text in ("ink", "soft", "accent", "warn", "good", "keyword", "number", "builtin"):
        for ground in ("ground", "shade", "parts"):
            assert contrast(used[text], used[ground]) >= 4.5, (text, ground)
    assert contrast("#000000", "#ffffff") == pytest.approx(21)

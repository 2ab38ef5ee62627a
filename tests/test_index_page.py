"""The index of a run: it loads nothing from the network, escapes text, and states the scale of the run."""

import re

import pandas as pd
import pytest
from pages import loads_from_network

from qmsam_core.params import Params
from qmsam_core.study.index_page import Entry, scale_of, write_index


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
    assert (
        "Of 3 claims of the paper that this run can judge, 2 hold here too; "
        "in 2 statements paper and run part." in page
    )
    parting, untold = page.split("<h3>Where they part</h3>")[1].split("<h3>Cannot be told here</h3>")
    untold = untold.split("<figure")[0]
    assert (
        parting.count("<li>") == 2
        and "<li>quick: paper 4.16x, here 0.90x" in parting
        and "<li>fast: paper 0.98x" in parting
    )
    assert untold.count("<li>") == 2 and "<li>enough: paper" in untold and "<li>lost: paper" in untold
    assert page.count('class="parts"') == 2
    assert page.index("quick") < page.index("Notebooks</h2>") < page.index("The run</h2>")


@pytest.mark.parametrize(
    ("here", "summary"),
    [
        (
            "yes",
            "Of 1 claim of the paper that this run can judge, 1 holds here too; "
            "in no statements paper and run part.",
        ),
        (
            "no",
            "Of 1 claim of the paper that this run can judge, 0 hold here too; "
            "in 1 statement paper and run part.",
        ),
        (
            "cannot be told",
            "Of 0 claims of the paper that this run can judge, 0 hold here too; in no statements",
        ),
    ],
)
def test_one_claim(project, here, summary):
    page = index_of_claims(project, [["even", "Table 7", "1", "2", "yes", here]])
    assert summary in page and ("Where they part" in page) == (here == "no")
    assert ("Cannot be told here" in page) == (here == "cannot be told")


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

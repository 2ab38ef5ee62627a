"""HTML tables that fit a page: what wraps, what does not, and how headers are grouped."""

import pandas as pd
import pytest

from qmsam_core.evaluate.tables import styled
from qmsam_core.study.readable_tables import grouped, readable_tables, table_as_html


def test_long_texts_are_whole_and_long_names_may_break():
    text, name = "words " * 30 + "end", "image_encoder.layers.2.blocks.2.attn.av_product"
    frame = pd.DataFrame({"text": [text], "name": [name], "sha": ["79d8c9dc" * 8]})
    html = table_as_html(frame)
    assert text in html and "encoder.<wbr/>layers.<wbr/>" in html and "79d8c9dc79d8c9dc<wbr/>" in html
    assert html.replace("<wbr/>", "").count(name) == 1


def test_long_words_of_a_heading_may_break_with_a_hyphen():
    html = table_as_html(pd.DataFrame({"arm medficientsam": ["medficientsams"]}))
    assert "Arm medfici\u00adentsam" in html and "<td>medficientsams</td>" in html


def test_numbers_and_their_units_stay_together():
    html = readable_tables("<table><tbody><tr><td>from 59.84 % on, 3 x 512</td></tr></tbody></table>")
    assert "from 59.84\u00a0% on, 3\u00a0x 512" in html


NAMES = [f"Arm {k} dsc {source}" for k in range(4) for source in ("paper", "here")]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a", *NAMES[:3]], [("", ["a"]), *(("", [name]) for name in NAMES[:3])]),
        (
            ["a", *NAMES[:4], "Ellipse dsc here"],
            [
                ("", ["a"]),
                ("Arm 0", ["dsc paper", "dsc here"]),
                ("Arm 1", ["dsc paper", "dsc here"]),
                ("Ellipse", ["dsc here"]),
            ],
        ),
        (
            [f"stage {k} {source}" for source in ("paper", "here") for k in (1, 2)],
            [("paper", ["stage 1", "stage 2"]), ("here", ["stage 1", "stage 2"])],
        ),
        ([f"Arm {k} agreement here" for k in range(4)], [("Agreement here", [f"Arm {k}" for k in range(4)])]),
        (
            ["Mask decoder paper", "Mask decoder here", "Image encoder paper", "Image encoder here"],
            [("Mask decoder", ["paper", "here"]), ("Image encoder", ["paper", "here"])],
        ),
        (["time paper"] * 4, [("time", ["paper"] * 4)]),
        (["paper", "here", "", "x"], [("", [name]) for name in ("paper", "here", "", "x")]),
    ],
)
def test_columns_are_grouped_by_the_words_they_share(names, expected):
    assert grouped(names) == expected


def test_a_wide_table_gets_two_rows_of_headings_and_says_percent_once():
    frame = pd.DataFrame({"modality": ["CT", "Average"], **{name: [0.5, None] for name in NAMES}})
    html = readable_tables(styled(frame, "Table 7").to_html())
    assert '<div class="table many">' in html and '<p class="caption">Table 7</p>' in html
    assert html.count('colspan="2"') == 4 and html.count('rowspan="2"') == 1
    assert html.count(">DSC paper (%)</th>") == 4 and html.count(">DSC here (%)</th>") == 4
    assert html.count(">50.00</td>") == 8 and html.count(">–</td>") == 8 and "50.00 %" not in html


def test_a_table_that_is_grouped_already_stays_as_it_is():
    index = pd.MultiIndex.from_product([["CT", "MR"], ["a", "b"]], names=["modality", "arm"])
    columns = pd.MultiIndex.from_product([["dsc", "nsd"], ["paper", "here"]])
    html = readable_tables(pd.DataFrame([[1.5, 2, 3, 4]] * 4, index, columns)._repr_html_())
    assert html.count('<td class="n">1.5</td>') == 4 and 'rowspan="2"' in html and "<style" not in html
    assert html.count("<tr>") == 7


def test_table_numbers():
    columns = {
        "name": ["<b>", "y"],
        "few": [0.123456, None],
        "many": [5726740.0, 6220.0],
        "count": [3, 2],
        "ok": [True, False],
    }
    html = table_as_html(pd.DataFrame(columns))
    for cell in ("0.1235", "–", "5,726,740", "6,220", "3"):
        assert f'<td class="n">{cell}</td>' in html
    for cell in ("&lt;b&gt;", "True"):
        assert f"<td>{cell}</td>" in html

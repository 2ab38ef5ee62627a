"""Licences: which cases may train a checkpoint that is given away or be shown in pictures."""

import pytest

from qmsam_core.data.licences import is_open, read_sources, source_of, to_show

TABLE = """# Sources

## US: 3 cases

| files | source repository | original data set | licence as stated | remarks |
|---|---|---|---|---|
| `A/2DBox_US_A_1*`, `A/2DBox_US_B_` | here | Set A | CC0 (README) | - |
| `A/2DBox_US_N_*` | there | Set N | CC BY-NC 4.0 | - |

## CT: 1 case

| files | licence as stated |
|---|---|
| `C_` | MIT (LICENSE) |
"""


@pytest.mark.parametrize(
    "statement",
    [
        "CC0 (README.rst, data and fixes)",
        "CC BY 3.0 (LICENSE beside the data)",
        "MIT (repository)",
        "repository BSD-3-Clause (LICENSE.txt); no separate data licence",
        "repository Apache-2.0; no separate data licence stated there",
    ],
)
def test_open_licences(statement):
    assert is_open(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "",
        "none stated",
        "CC BY-NC 4.0 (LICENSE.md)",
        "CC BY-NC-SA 4.0",
        "CC BY-ND 4.0",
        "repository MIT (code); data set: research and educational use per its authors",
        "TCIA data usage policy named, no licence stated; "
        "repository LICENSE file MIT (names the UNet code author)",
        "annotations CC BY 4.0; each image its own licence (nearly all CC BY-NC-SA)",
        "repository: none stated (CC BY-NC 4.0 per another)",
        "all rights reserved, commercial licence on request",
    ],
)
def test_anything_less_is_not_open(statement):
    assert not is_open(statement)


def test_the_table_names_the_source_of_each_case(tmp_path):
    (tmp_path / "SOURCES.md").write_text(TABLE)
    sources = read_sources(tmp_path)
    assert sources["pattern"].tolist() == ["A/2DBox_US_A_1*", "A/2DBox_US_B_", "A/2DBox_US_N_*", "C_"]
    assert sources["open"].tolist() == [True, True, False, True]
    assert source_of("US/A/2DBox_US_B_77.npz", sources)["source"] == "Set A"
    # A path may lack the folder that the table names.
    assert source_of("US/2DBox_US_N_1.npz", sources)["licence"] == "CC BY-NC 4.0"
    assert source_of("CT/C_3.npz", sources)["open"]
    assert source_of("US/C_3.npz", sources) is None  # the pattern is of another modality
    assert source_of("US/2DBox_US_A_2.npz", sources) is None


SOURCES_OF_SETS = [  # pattern, licence as stated
    ("A/*", "CC0"),
    ("B/*.npz", "CC BY-NC 4.0"),
    ("C/", "MIT"),
    ("D/img_*", "CC BY 4.0"),
    ("E/img_*", "CC BY-NC 4.0"),
    ("F/2DBox_US_*", "CC0"),
    ("case_1", "CC BY 4.0"),
    ("part_", "CC0"),
    ("part_2_", "CC BY-ND 4.0"),
    ("part_23", "CC0"),
    ("G/scan*", "CC0"),
    ("G/scan_7*", "Apache-2.0"),
]


@pytest.mark.parametrize(
    ("name", "pattern", "open_"),
    [
        ("A/x.npz", "A/*", True),
        ("B/x.npz", "B/*.npz", False),  # not the row of A, although it comes first
        ("C/x.npz", "C/", True),
        ("unlisted/x.npz", None, None),
        ("x.npz", None, None),  # a pattern for a whole folder does not cover a file beside it
        ("2DBox_US_9.npz", None, None),  # words that every name holds do not identify a set
        ("D/img_1.npz", "D/img_*", True),
        ("E/img_1.npz", "E/img_*", False),
        ("img_1.npz", "E/img_*", False),  # may be of set D or E: open only if both are
        ("H/img_1.npz", None, None),
        ("case_1.npz", "case_1", True),
        ("case_1_2.npz", "case_1", True),
        ("case_10.npz", None, None),
        ("case_1a.npz", None, None),
        ("part_1.npz", "part_", True),
        ("part_2_1.npz", "part_2_", False),
        ("part_23.npz", "part_23", True),  # the longest pattern that matches
        ("G/scan_7.npz", "G/scan_7*", True),
        ("G/scan_8.npz", "G/scan*", True),
    ],
)
def test_a_pattern_names_its_own_files_alone(tmp_path, name, pattern, open_):
    lines = [f"| `{stated}` | {licence} |" for stated, licence in SOURCES_OF_SETS]
    (tmp_path / "SOURCES.md").write_text(
        "\n".join(["## US: many", "", "| files | licence as stated |", "|---|---|", *lines])
    )
    row = source_of(f"US/{name}", read_sources(tmp_path))
    assert (row is None) == (pattern is None)
    if row is not None:
        assert (row["pattern"], bool(row["open"])) == (pattern, open_)


def test_a_folder_without_sources_states_nothing(tmp_path):
    assert read_sources(tmp_path).empty
    assert source_of("US/x.npz", read_sources(tmp_path)) is None


def test_pictures_are_made_of_open_cases_where_there_are_any(tmp_path):
    paths = [tmp_path / "US" / "A" / f"2DBox_US_{name}.npz" for name in ("N_1", "A_1", "unlisted")]
    # A folder without a statement of sources holds phantoms or the user's own cases.
    assert to_show(paths, tmp_path).tolist() == [True, True, True]
    (tmp_path / "SOURCES.md").write_text(TABLE)
    assert to_show(paths, tmp_path).tolist() == [False, True, False]
    assert to_show(paths[::2], tmp_path).tolist() == [True, True]

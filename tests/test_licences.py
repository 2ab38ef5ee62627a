"""Which cases may train a checkpoint that is given away."""

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
        "TCIA data usage policy named, no licence stated; repository LICENSE file MIT (names the UNet code author)",
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
    assert source_of("US/2DBox_US_N_1.npz", sources)["licence"] == "CC BY-NC 4.0"  # folders of the table may be left out
    assert source_of("CT/C_3.npz", sources)["open"]
    assert source_of("US/C_3.npz", sources) is None  # the modality counts
    assert source_of("US/2DBox_US_A_2.npz", sources) is None


def test_a_folder_without_sources_states_nothing(tmp_path):
    assert read_sources(tmp_path).empty
    assert source_of("US/x.npz", read_sources(tmp_path)) is None


def test_pictures_are_made_of_open_cases_where_there_are_any(tmp_path):
    paths = [tmp_path / "US" / "A" / f"2DBox_US_{name}.npz" for name in ("N_1", "A_1", "unlisted")]
    assert to_show(paths, tmp_path).tolist() == [True, True, True]  # phantoms, a folder of one's own
    (tmp_path / "SOURCES.md").write_text(TABLE)
    assert to_show(paths, tmp_path).tolist() == [False, True, False]
    assert to_show(paths[::2], tmp_path).tolist() == [True, True]

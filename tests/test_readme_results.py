"""The README's results: one table for each published run, made from that run's tables alone."""

import json
from pathlib import Path

import pandas as pd
import pytest

from qmsam_core.params import Params
from qmsam_core.study.readme_results import BEGIN, END, ReadmeError, results, update_readme

PROJECT = Path(__file__).parents[1]
NAN = float("nan")
SUMMARY = pd.DataFrame(
    [
        ("float", 0.9, NAN, NAN, NAN, 0.8, 1.0, 300.0),
        ("int8, calibrated", 0.85, -0.05, -0.06, -0.035, 0.7, 0.91, 100.4),
        ("ellipse in the box", 0.8, -0.1, -0.1, -0.1, 0.6, 0.7, NAN),  # an interval without width
    ],
    columns=[
        "model",
        "dsc",
        "difference to float",
        "difference low",
        "difference high",
        "nsd",
        "agreement with float",
        "ms",
    ],
)
GAIN = pd.DataFrame(
    {
        "table": ["Table 5"],
        "engine": ["OpenVINO"],
        "speed-up paper": [0.98],
        "speed-up over plain float": [3.0],
        "speed-up over best float": [2.5],
        "best float": ["OpenVINO, rewritten"],
    }
)


@pytest.fixture
def published(project):
    """A project with a published run on the data folder pack, with the two tables that the README reads."""
    run = project / "outputs" / "reference" / "smoke-pack"
    for name, table in (("09_testing/summary.csv", SUMMARY), ("06_engine_speed/int8_gain.csv", GAIN)):
        (run / name).parent.mkdir(parents=True)
        table.to_csv(run / name, index=False)
    (run / "index.html").touch()
    record = {
        "parameters": Params(data_root="pack").model_dump(mode="json"),
        "environment": {"cpu": {"model": "A CPU", "avx2": True, "vnni": True, "amx": False}},
    }
    (run / "09_testing" / "run.json").write_text(json.dumps(record))
    (project / "README.md").write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    return project


def test_the_table_and_what_it_was_measured_on(published):
    assert update_readme(published) and not update_readme(published)
    text = (published / "README.md").read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert (
        "**Profile smoke, pack, litemedsam at 64 px, recipe paper**, on A CPU (avx2, vnni), 2 threads;"
        in text
    )
    assert "[the whole run on one page](outputs/reference/smoke-pack/index.html)" in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert rows[2:] == [
        "| float | 90.0 | – | 80.0 | 100.0 | 300 |",
        "| int8, calibrated | 85.0 | -5.00 (-6.00 to -3.50) | 70.0 | 91.0 | 100 |",
        "| ellipse in the box | 80.0 | -10.00 | 60.0 | 70.0 | – |",
    ]
    assert (
        "2.50 times as fast as on the best float arm of this CPU (OpenVINO, rewritten) and 3.00 times" in text
    )
    assert "0.98 times" in text


def test_without_runs_and_without_a_place_for_results(project):
    (project / "README.md").write_text(f"{BEGIN}\nold\n{END}\n")
    assert update_readme(project) and "No run is published yet" in (project / "README.md").read_text()
    (project / "README.md").write_text("no comments")
    with pytest.raises(ReadmeError, match="results: begin"):
        update_readme(project)


def test_readme_stands_as_generated():
    text = (PROJECT / "README.md").read_text(encoding="utf-8")
    assert text.split(BEGIN)[1].split(END)[0] == f"\n{results(PROJECT)}", (
        "run python -m qmsam_core.study.publish --readme"
    )

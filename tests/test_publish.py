"""Publishing a run: what is copied, pictures by licence, no path of the machine, all or nothing."""

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from published_run import SOURCES, make_run

from qmsam_core.params import Params
from qmsam_core.study.machine_names import MachineNames, left_over
from qmsam_core.study.notebooks import find_notebooks
from qmsam_core.study.publish import FIGURE, PublishError, dangling_links, main, publish, smaller
from qmsam_core.study.readme_results import BEGIN, END

PROJECT = Path(__file__).parents[1]


@pytest.fixture
def pack(tmp_path):
    """A data folder outside the project. It holds nothing but its statement of sources."""
    folder = tmp_path / "elsewhere" / "pack"
    folder.mkdir(parents=True)
    (folder / "SOURCES.md").write_text(SOURCES)
    return folder


def text_of(folder):
    return "\n".join(
        path.read_text() for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".png"
    )


def test_what_is_copied(project):
    target = project / "reference"
    files = [path.relative_to(target).as_posix() for path in publish(make_run(project), target)]
    assert files == [
        *(
            f"07_validation/{name}"
            for name in (
                "fig2.png",
                "paired_stage3.csv",
                "report.html",
                "run.json",
                "scatter.png",
                "table7_dsc.csv",
                "table7_nsd.csv",
            )
        ),
        *(f"10_beyond/{name}" for name in ("claims.csv", "report.html", "run.json")),
        "index.html",
    ]
    report, index = (
        (target / "07_validation" / "report.html").read_text(),
        (target / "index.html").read_text(),
    )
    assert 'src="fig2.png"' in report and 'alt="Figure 2: a case"' in report and "base64" not in report
    assert 'src="07_validation/fig2.png"' in index and "safetensors" not in index and "State" not in index
    assert index.count('<tr class="parts">') == 2
    assert list(dangling_links(target)) == []


def test_no_path_of_the_machine(project, pack):
    target = project / "reference"
    run = make_run(project, pack)
    assert str(project) in (run / "07_validation" / "executed.ipynb").read_text() and run.name == "smoke-pack"
    publish(run, target)
    everything = text_of(target)
    assert str(project) not in everything and str(pack) not in everything and left_over(everything) == []
    assert "outputs/smoke-pack/07_validation/table7.csv" in everything
    assert json.loads((target / "10_beyond" / "run.json").read_text())["parameters"]["data_root"] == "pack"
    assert publish(run, target)  # publishing again replaces the first copy


def test_readings_and_answers_are_published_with_links_to_what_they_tell_of(project):
    target = project / "reference"
    publish(make_run(project), target)
    index = (target / "index.html").read_text()
    assert "outputs/smoke/07_validation: stage 3 and float differ by 3\u00a0points." in index
    record = json.loads((target / "07_validation" / "run.json").read_text())
    assert record["readings"]["table7_dsc"][0].endswith("differ by 3 points.")
    assert "1 of 2 judged here; 2 by the paper&#39;s own numbers." in index
    report = (target / "07_validation" / "report.html").read_text()
    assert re.search(r'<div id="fig2.png">.*<a href="fig2.png"><img [^>]*src="fig2.png"', report, flags=re.S)
    assert 'href="paired_stage3.csv"' in report  # no cell names it, so it is listed at the end


def test_pictures_of_open_cases_are_shown_with_their_source(project, pack):
    target = project / "reference"
    publish(make_run(project, pack), target)
    index = (target / "index.html").read_text()
    assert "3DBox_CT_A_1: Set A &amp; friends; licence as stated: CC BY 3.0 (README)" in index
    assert (target / "07_validation" / "fig2.png").is_file()


@pytest.mark.parametrize(
    ("shows", "why"),
    [
        (("CT/A/3DBox_CT_A_1.npz", "CT/B/3DBox_CT_B_1.npz"), "CT/B/3DBox_CT_B_1.npz (CC BY-NC 4.0)"),
        (("CT/C/3DBox_CT_C_1.npz",), "CT/C/3DBox_CT_C_1.npz (not named)"),
        (None, "does not say which cases"),
    ],
)
def test_other_pictures_are_left_out_of_folder_and_report(project, pack, shows, why):
    target = project / "reference"
    run = make_run(project, pack, shows)
    publish(run, target)
    report, index = (
        (target / "07_validation" / "report.html").read_text(),
        (target / "index.html").read_text(),
    )
    assert (
        not (target / "07_validation" / "fig2.png").exists()
        and (target / "07_validation" / "scatter.png").is_file()
    )
    assert (
        why in report
        and why in index
        and "fig2.png" not in re.sub(r"<code>fig2.png|fig2', x", "", report).replace("&#39;", "'")
    )
    assert report.count("<img") == 1 and 'src="scatter.png"' in report and "base64" not in report


def test_a_picture_without_a_name_is_left_out(project, pack):
    run = make_run(project, pack)
    executed = run / "07_validation" / "executed.ipynb"
    executed.write_text(executed.read_text().replace("'fig2', x", "name, x").replace("scatter", "other"))
    publish(run, project / "reference")
    report = (project / "reference" / "07_validation" / "report.html").read_text()
    assert report.count("does not say which cases") == 2 and "<img" not in report


@pytest.mark.parametrize("stated", ["CC BY-NC 4.0", "CC BY 4.0"])
def test_a_picture_of_validation_cases_goes_by_the_licences_of_their_folder(project, pack, stated):
    """In the data folder, a case of the same name has an open licence."""
    public = project / "public"
    public.mkdir()
    public.joinpath("SOURCES.md").write_text(
        pack.joinpath("SOURCES.md").read_text().replace("CC BY 3.0 (README)", stated)
    )
    publish(make_run(project, pack, validation=public), project / "reference")
    assert (project / "reference" / "07_validation" / "fig2.png").exists() == (stated == "CC BY 4.0")


def test_unknown_sources_share_no_picture_of_cases(project, pack):
    run = make_run(project, pack)
    (pack / "SOURCES.md").unlink()
    publish(run, project / "reference")
    assert not (project / "reference" / "07_validation" / "fig2.png").exists()


def altered(run):
    with (run / "07_validation" / "table7_dsc.csv").open("a") as stream:
        stream.write("CT,1,1\n")


def another_input(run):
    path = run / "10_beyond" / "run.json"
    record = json.loads(path.read_text())
    record["inputs"]["07_validation/table7_dsc.csv"] = "0" * 64
    path.write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: (run / "10_beyond" / "run.json").unlink(), "10_beyond: not finished"),
        (lambda run: (run / "07_validation" / "failed.ipynb").touch(), "07_validation: not finished"),
        (altered, "table7_dsc.csv: not as the notebook left it"),
        (another_input, "10_beyond: read another 07_validation/table7_dsc.csv"),
    ],
)
def test_unfinished_or_altered_runs_are_refused_and_the_former_copy_stays(project, spoil, message):
    run, target = make_run(project), project / "reference"
    before = {path: path.read_bytes() for path in publish(run, target)}
    spoil(run)
    with pytest.raises(PublishError, match=message):
        publish(run, target)
    assert {path: path.read_bytes() for path in target.rglob("*") if path.is_file()} == before


def test_a_leak_is_refused_and_leaves_nothing_behind(project):
    with pytest.raises(
        PublishError, match=r"07_validation/report.html: names a path of this machine, /home/somebody/x"
    ):
        publish(make_run(project, leak="/home/somebody/x"), project / "shared" / "reference")
    assert list((project / "shared").iterdir()) == []


def test_a_target_that_holds_other_things_is_refused(project):
    run = make_run(project)
    for name, _ in (("a/weights.npz", "no index.html"), ("b/notes.html", "no index.html")):
        path = project / name
        path.parent.mkdir()
        path.touch()
        with pytest.raises(PublishError, match="holds something other than a published run"):
            publish(run, path.parent)
        assert path.exists()
    with pytest.raises(PublishError, match="holds something other"):
        publish(run, run)


def test_machine_names():
    machine = MachineNames(
        Params(data_root="/srv/hospital/pack", testing_root="/srv/hidden"),
        Path("/opt/study/outputs/smoke-pack"),
    )
    said = (
        "from /srv/hidden/x, /srv/hospital/pack/CT and '/srv/hospital/packed', /opt/study/outputs/x, "
        "see https://a.org/opt/study Linux-5.15.0-91-generic-x86_64-with-glibc2.35"
    )
    assert machine.without(said) == (
        "from hidden/x, pack/CT and '/srv/hospital/packed', outputs/x, "
        "see https://a.org/opt/study Linux-5.15.0-x86_64-with-glibc2.35"
    )
    assert machine.without_in({"a": ["/opt/study/b", 1, None]}) == {"a": ["./b", 1, None]}
    assert left_over(
        "a /home/u/x.npz, base64,AA/home/u/ and <br/>/ 3/data/x outputs/tmp/y (C:\\Users\\u)"
    ) == ["/home/u/x.npz", "C:\\Users"]


def test_pictures_of_256_colours():
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, "PNG")
    small = smaller(stream.getvalue())
    assert len(small) < len(stream.getvalue()) and Image.open(io.BytesIO(small)).size == (64, 64)
    assert smaller(small) == smaller(smaller(small))


def test_a_thin_coloured_line_on_a_grey_picture_keeps_its_colour():
    """Objects' outlines are such lines. Here three of 40 pixels cross 300,000 grey or tinted pixels."""
    rng = np.random.default_rng(0)
    picture = np.repeat(rng.integers(0, 256, (500, 600, 1)), 3, axis=2)
    for rows, tint in ((slice(0, 150), (47, 181, 255)), (slice(150, 300), (25, 211, 162))):
        picture[rows] = 0.78 * picture[rows] + 0.22 * np.array(tint)
    lines = {350: (255, 159, 28), 360: (255, 122, 198), 370: (255, 90, 54)}
    for row, colour in lines.items():
        picture[row, 10:50] = colour
    stream = io.BytesIO()
    Image.fromarray(picture.astype(np.uint8)).save(stream, "PNG")
    found = np.asarray(Image.open(io.BytesIO(smaller(stream.getvalue()))).convert("RGB")).astype(int)
    for row, colour in lines.items():
        assert np.abs(found[row, 12:48] - colour).mean() < 15


def test_every_figure_of_the_notebooks_is_named_where_publishing_looks_for_it():
    for book in find_notebooks(PROJECT / "notebooks"):
        source = "\n".join(
            "".join(cell["source"])
            for cell in json.loads(book.path.read_text())["cells"]
            if cell["cell_type"] == "code"
        )
        assert source.count("run.figure(") == len(FIGURE.findall(source)), book.name


# The README


def test_command_line(project, capsys):
    run = make_run(project)
    (project / "README.md").write_text(f"{BEGIN}\n{END}\n")
    assert main([str(run), "-o", "outputs/reference/smoke"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"outputs/reference/smoke: 11 files, [\d,]+ bytes", said) and "results renewed" in said
    assert main(["--readme"]) == 0 and "as they were" in capsys.readouterr().out
    assert main(["outputs/gone", "-o", "x"]) == 2 and "not finished" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([str(run)])


def test_reference_runs_name_no_path_of_a_machine():
    for index in sorted((PROJECT / "outputs" / "reference").glob("*/index.html")):
        assert left_over(text_of(index.parent)) == [], index.parent
        assert list(dangling_links(index.parent)) == [], index.parent

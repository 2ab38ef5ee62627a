"""The public weights: where they are looked for, and the errors if they are missing or other weights."""

import subprocess
import sys
from pathlib import Path

import pytest

from qmsam_core.models import CheckpointError, build_model
from qmsam_core.provenance import weights
from qmsam_core.provenance.weights import checkpoint_path, public_checkpoint

ROOT = Path(__file__).parents[1]
THREE_WAYS = ("requirements-weights.txt", "checkpoints/lite_medsam.pth", "float_checkpoint")


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A project without checkpoints and without the weights' package. A small file counts as published."""
    published = b"the published weights"
    (tmp_path / "published.pth").write_bytes(published)
    monkeypatch.setattr(weights, "packaged", lambda: None)
    monkeypatch.setattr(weights, "LOCAL", tmp_path / "checkpoints" / "lite_medsam.pth")
    monkeypatch.setattr(weights, "BYTES", len(published))
    monkeypatch.setattr(weights, "SHA256", weights.sha256(tmp_path / "published.pth"))
    (tmp_path / "checkpoints").mkdir()
    return tmp_path


def test_the_package_comes_first_then_the_project_s_own_folder(elsewhere, monkeypatch):
    local = elsewhere / "checkpoints" / "lite_medsam.pth"
    local.write_bytes((elsewhere / "published.pth").read_bytes())
    assert public_checkpoint() == checkpoint_path("public") == local
    monkeypatch.setattr(weights, "packaged", lambda: elsewhere / "published.pth")
    assert public_checkpoint() == elsewhere / "published.pth"


@pytest.mark.parametrize(
    "content, words",
    [
        (None, "is not installed and"),
        (b"the published w", "15 bytes, expected 21"),
        (b"the published Weights", "SHA-256"),
    ],
    ids=["missing", "cut short", "another file"],
)
def test_what_is_wrong_is_told_in_one_line_with_three_ways_to_get_it_right(elsewhere, content, words):
    if content is not None:
        (elsewhere / "checkpoints" / "lite_medsam.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=words) as caught:
        build_model("litemedsam", checkpoint="public")
    assert all(way in str(caught.value) for way in THREE_WAYS) and "\n" not in str(caught.value)


def test_public_means_litemedsam_s(elsewhere):
    with pytest.raises(CheckpointError, match="not those of medsam"):
        checkpoint_path("public", "medsam")
    assert checkpoint_path("some/file.pth", "medsam") == Path("some/file.pth")


def test_the_study_stops_before_anything_else_where_the_weights_are_missing(tmp_path):
    code = (
        "import sys; from qmsam_core.provenance import weights; from pathlib import Path;"
        f"weights.packaged = lambda: None; weights.LOCAL = Path({str(tmp_path / 'no.pth')!r});"
        "from qmsam_core.study.__main__ import main; code = main(['params/smoke.yaml']);"
        "print(sorted({'torch', 'pandas', 'nbconvert'} & set(sys.modules))); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1
    assert all(way in done.stderr for way in THREE_WAYS)
    assert done.stdout.strip() == "[]"  # the error comes before any large module is loaded


@pytest.mark.weights
def test_the_installed_file_is_the_published_one_and_its_package_is_never_imported():
    path = public_checkpoint()
    assert path.stat().st_size == weights.BYTES and weights.sha256(path) == weights.SHA256
    build_model("litemedsam", 64, "public")
    assert not any(name.startswith("medsam_lite") for name in sys.modules)

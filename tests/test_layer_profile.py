"""The profile of a part: bytes, multiplications and limits of nodes, and what the command says."""

import pandas as pd
import pytest
import torch

from qmsam_core.deploy.export import export_model
from qmsam_core.deploy.ways import Way
from qmsam_core.models import build_model
from qmsam_core.quant import calibrate, quantize
from qmsam_core.timing.layer_profile import (
    Machine,
    against_limits,
    by_kind,
    main,
    measure_machine,
    profile_part,
)

MACHINE = Machine(bandwidth={1.0: 10.0, 100.0: 10.0}, peak={"f32": 100.0, "int8": 400.0})


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    folder, image = tmp_path_factory.mktemp("export"), torch.rand(1, 3, 128, 128)
    made = quantize(build_model("narrow", 128), "deploy")
    calibrate(made, lambda m, x: m(x, torch.tensor([[10.0, 10, 90, 90]])), [image])
    export_model(made, folder, origin="test")
    return folder


def nodes_of(*rows):
    return pd.DataFrame(rows, columns=["name", "kind", "precision", "ms", "MB read", "MB written", "GMAC"])


def test_a_node_s_limit_is_the_larger_of_its_bytes_and_its_multiplications():
    nodes = nodes_of(
        ("moves", "layout", "int8", 4.0, 10.0, 10.0, 0.0),  # 20 MB at 10 GB/s: 2 ms
        ("multiplies", "1x1 convolution", "int8", 10.0, 1.0, 1.0, 2.0),  # 2 GMAC at 400 a second: 5 ms
        ("in float", "1x1 convolution", "f32", 10.0, 1.0, 1.0, 0.5),  # 5 ms
    )
    found = against_limits(nodes, MACHINE)
    assert found["limit ms"].tolist() == pytest.approx([2, 5, 5])
    assert found["ms above"].tolist() == pytest.approx([2, 5, 5])
    assert found["bound"].tolist() == ["bytes", "multiplications", "multiplications"]
    assert found["bandwidth share"].tolist() == pytest.approx([0.5, 0.02, 0.02])
    table = by_kind(nodes, MACHINE)
    assert table["kind"].tolist()[-1] == "all" and table["ms"].iloc[-1] == 24
    assert table["limit ms"].iloc[-1] == pytest.approx(12) and len(table) == 4
    assert table["times limit"].iloc[-1] == pytest.approx(2)
    assert table["bandwidth share"].iloc[-1] == pytest.approx((2 + 0.2 + 0.2) / 24)
    assert table["peak share"].iloc[-1] == pytest.approx(10 / 24)


@pytest.mark.parametrize("moved, ms", [(0.5, 0.005), (1, 0.01), (10, 10 / 55), (100, 10), (1000, 100)])
def test_bandwidth_goes_by_the_size_and_is_kept_beyond_those_measured(moved, ms):
    machine = Machine({1.0: 100.0, 100.0: 10.0}, MACHINE.peak)
    assert machine.moving(pd.Series([moved])).iloc[0] == pytest.approx(ms)


def test_nodes_of_an_export_are_described(export):
    nodes = profile_part(export, "encoder", Way(), threads=1, runs=2)
    assert (nodes["ms"] > 0).all() and (nodes["MB written"] > 0).all()
    first = nodes[nodes["kind"].str.startswith("1x1 convolution")].iloc[0]
    # 3 -> C channels in float on 128 x 128 px
    channels = build_model("narrow", 128).image_encoder.patch_embed.seq[0].c.out_channels
    assert first["precision"] == "f32" and first["GMAC"] == pytest.approx(3 * channels * 128**2 / 1e9)
    assert first["MB written"] == pytest.approx(4 * channels * 128**2 / 1e6)
    assert {"attention", "norm", "element-wise", "depthwise convolution", "3x3 convolution"} <= set(
        nodes["kind"]
    )
    assert not nodes["name"][nodes["kind"] == "other"].str.contains("Concat").any()
    cuts = nodes[nodes["name"].str.contains("/Slice")]
    assert len(cuts) and (cuts["MB read"] == cuts["MB written"]).all()  # a slice reads only what it writes
    assert (nodes.loc[nodes["kind"] == "attention", "GMAC"] > 0).all()


def test_what_the_machine_reaches_is_measured():
    machine = measure_machine(threads=1, runs=1)
    speeds = list(machine.bandwidth.values())
    assert list(machine.bandwidth) == sorted(machine.bandwidth) and speeds == sorted(speeds, reverse=True)
    assert speeds[-1] > 0 and {"f32", "int8"} <= set(machine.peak)
    assert all(peak > 0 for peak in machine.peak.values())


def test_the_command_prints_kinds_and_keeps_all_nodes(export, tmp_path, capsys):
    output = tmp_path / "nodes.csv"
    asked = [str(export), "--threads", "1", "--runs", "1", "--worst", "2", "-o", str(output)]
    assert main(asked) == 0
    said = capsys.readouterr().out
    assert "GMAC/s" in said and "furthest above their limit" in said and " all " in said
    assert {"name", "limit ms", "bound"} <= set(pd.read_csv(output))


@pytest.mark.parametrize(
    "change, message", [(["--part", "tail"], "has encoder, prepare, decoder"), (["folder"], "no such file")]
)
def test_what_is_missing_is_named(export, tmp_path, capsys, change, message):
    folder = [str(tmp_path)] if change == ["folder"] else [str(export), *change]
    assert main([*folder, "--threads", "1"]) == 2
    assert message in capsys.readouterr().err

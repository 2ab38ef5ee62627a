"""Number formats of training: bf16 only where the device multiplies it in hardware."""

import pytest
import torch

from qmsam_core.train.precision import has_bf16


@pytest.mark.parametrize(
    "found, expected",
    [
        ({"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ({"avx512_bf16": True}, True),
        ({"avx512_bf16": False, "amx_bf16": True}, True),
        ({}, False),
    ],
)
def test_bf16_is_used_on_cpus_with_its_instructions(monkeypatch, found, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    assert has_bf16("cpu") is expected

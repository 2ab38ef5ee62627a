"""What comes to the quantisers of activations, beside the range that they keep: shares clipped, codes used.

The values are those of one pass of a quantised model over a few slices. A quantiser that this pass does not
reach, such as those of the decoder's other mask tokens, is not in the results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ..models import Sam
from .convert import QuantMatMul, by_channel
from .ranges import Range
from .recipes import PARTS
from .scales import activation_quantisers, range_of
from .sensitivity import signal_to_noise

OPERANDS = {"a_quant": 0, "b_quant": 1}
"""Quantisers of a product of activations, and the places of what they quantise among its arguments."""


@dataclass(frozen=True)
class Input:
    """Values that come to one quantiser.

    Attributes:
        codes: the range that it keeps.
        quantised: values in the quantised model (n,), float32, before they are quantised.
        floating: values of the same place in the float model (n,), float32, on the same scale: with the
            layer's channel factors and its noise, if it has any.
    """

    codes: Range
    quantised: np.ndarray
    floating: np.ndarray


def ranges(model: nn.Module) -> pd.DataFrame:
    """List the ranges of all quantisers of activations: quantiser, low, high and `largest magnitude`.

    `low` and `high` are the least and the largest value that has a code.
    """
    found = {name: range_of(proxy) for name, proxy in activation_quantisers(model).items()}
    table = pd.DataFrame(
        [(name, codes.low * codes.scale, codes.high * codes.scale) for name, codes in found.items()],
        columns=["quantiser", "low", "high"],
    )
    return table.assign(**{"largest magnitude": table[["low", "high"]].abs().max(axis=1)})


@torch.no_grad()
def activation_values(model: Sam, batch: dict) -> pd.DataFrame:
    """Measure what a pass brings to each quantiser of activations, in the order of the model.

    Args:
        model: quantised and calibrated, in evaluation mode.
        batch: with image (B, 3, S, S) and box (B, 4).

    Returns:
        One row a quantiser: quantiser, part (encoder or decoder), values (their number), low and high (of the
        range that the codes cover), mean magnitude (of the values), `range ratio` (the range's larger end
        over that mean), clipped (share of the values beyond the range, 0..1), codes (that at least one value
        has), codes in all, and `rounding db` (the values' energy over that of this quantiser's own error;
        infinite if it makes none).
    """
    proxies = activation_quantisers(model)
    codes = {name: range_of(proxy) for name, proxy in proxies.items()}  # asking for a range calls the hooks
    rows: dict[str, dict] = {}
    with watched(proxies, lambda name, x: rows.setdefault(name, _row(name, codes[name], x.float()))):
        model(batch["image"], batch["box"])
    return pd.DataFrame([rows[name] for name in proxies if name in rows])


def _row(name: str, codes: Range, x: Tensor) -> dict:
    """Return one row of `activation_values`."""
    rounded = (x / codes.scale).round_()
    kept = rounded.clamp(codes.low, codes.high)
    low, high, mean = codes.low * codes.scale, codes.high * codes.scale, float(x.abs().mean())
    return {
        "quantiser": name,
        "part": next(part for part, attribute in PARTS.items() if name.startswith(attribute)),
        "values": x.numel(),
        "low": low,
        "high": high,
        "mean magnitude": mean,
        "range ratio": max(-low, high) / mean if mean else float("inf"),
        "clipped": float((rounded != kept).float().mean()),
        "codes": int((torch.bincount((kept - codes.low).flatten().int()) > 0).sum()),
        "codes in all": codes.high - codes.low + 1,
        "rounding db": signal_to_noise(x, kept * codes.scale),
    }


def telling(table: pd.DataFrame) -> dict[str, str]:
    """Choose four quantisers that show what int8 does, and say of each by what rule, by name.

    They are the encoder's layer that clips most, its layer with the widest range for its values, the product
    of an attention that loses most by rounding, and the layer of the decoder that does. Parts that are not
    quantised have none.

    Args:
        table: result of `activation_values`.
    """
    products = table["quantiser"].str.endswith(tuple(OPERANDS))
    encoder = table[(table["part"] == "encoder") & ~products]
    decoder = table[(table["part"] == "decoder") & ~products]
    rules = (
        ("the encoder's layer that clips most", encoder["clipped"]),
        ("the encoder's layer with the widest range for its values", encoder["range ratio"]),
        ("the operand of an attention that loses most", -table[products]["rounding db"]),
        ("the decoder's layer that loses most", -decoder["rounding db"]),
    )
    chosen: dict[str, str] = {}
    for rule, values in rules:
        left = values[~table.loc[values.index, "quantiser"].isin(chosen)]
        if len(left):
            chosen[table.loc[left.idxmax(), "quantiser"]] = rule
    return chosen


@torch.no_grad()
def inputs_of(float_model: Sam, model: Sam, names: Iterable[str], batch: dict) -> dict[str, Input]:
    """Return what comes to some quantisers, and what the float model has at the same places.

    Args:
        float_model: the model before quantisation, in evaluation mode.
        model: quantised and calibrated, in evaluation mode.
        names: quantisers, as `activation_values` names them.
        batch: see `activation_values`.
    """
    names = list(names)
    proxies = {name: proxy for name, proxy in activation_quantisers(model).items() if name in names}
    found: dict[str, list[np.ndarray]] = {name: [] for name in names}

    def keep(name: str, x: Tensor) -> None:
        found[name].append(x.float().flatten().cpu().numpy())

    with watched(proxies, keep):
        model(batch["image"], batch["box"])
    layers = {name: float_model.get_submodule(_place(name)[0]) for name in proxies}
    with watched(layers, lambda name, x: keep(name, _adapted(model, name, x))):
        float_model(batch["image"], batch["box"])
    return {name: Input(range_of(proxies[name]), *found[name]) for name in names}


@contextmanager
def watched(modules: dict[str, nn.Module], look: Callable[[str, Tensor], object]) -> Iterator[None]:
    """Call `look` with the name and the input of these modules whenever they are called within the block."""

    def hook(name: str) -> Callable:
        def before(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            # a product is one module with two inputs, a quantiser has one
            look(name, inputs[min(_place(name)[1], len(inputs) - 1)])

        return before

    hooks = [module.register_forward_pre_hook(hook(name)) for name, module in modules.items()]
    try:
        yield
    finally:
        for one in hooks:
            one.remove()


def _place(name: str) -> tuple[str, int]:
    """Return the layer whose input a quantiser quantises, and which of its inputs that is."""
    layer, _, last = name.rpartition(".")
    return (layer, OPERANDS[last]) if last in OPERANDS else (name, 0)


def _adapted(model: Sam, name: str, x: Tensor) -> Tensor:
    """Bring an input of the float model to the scale of the quantiser: see `Input.floating`."""
    layer = model.get_submodule(_place(name)[0])
    if isinstance(layer, QuantMatMul):
        return x
    if hasattr(layer, "input_factor"):
        x = x * by_channel(layer, layer.input_factor)
    return x + by_channel(layer, layer.input_noise) if hasattr(layer, "input_noise") else x

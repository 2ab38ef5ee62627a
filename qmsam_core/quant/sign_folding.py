"""Signs of channels folded into queries and keys where the keys have two peaks (PTQ4SAM, Lv et al. 2024).

The keys of some attentions lie around two values of opposite sign, each channel around one of them. Negative
channels change their sign, in the keys and in the queries, so that all lie around one value. The products of
queries and keys stay the same, and so does the network's work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from scipy.ndimage import gaussian_filter1d
from scipy.signal import find_peaks
from torch import Tensor, nn

from ..models import Sam
from .scales import switched_off, unset_scales

COLUMNS = 2400  # keys sampled of each attention over all batches
BINS, SMOOTHING = 128, 4.0  # of the histogram of keys; the smoothing is in bins
PROMINENCE = 0.1  # of a peak, as a share of the highest one


def fold_signs(model: Sam, run: Callable[[Sam, dict], object], batches: list) -> list[str]:
    """Fold signs into the queries and keys of attentions whose keys have two peaks, in place.

    Attentions that add a bias made of the queries, as SAM's plain ViT does, stay as they are: a sign would
    change that bias. So do those whose products are in float or whose scales are set.

    Args:
        model: quantised, not yet calibrated.
        run: calls the model on one batch.
        batches: at least one.

    Returns:
        Names of the attentions with folded signs.
    """
    attentions = {
        name: module
        for name, module in model.named_modules()
        if hasattr(getattr(module, "qk_product", None), "a_quant")
        and not hasattr(module, "rel_pos_h")
        and unset_scales(module)
    }
    folded = []
    for name, keys in keys_of(model, attentions, run, batches).items():
        if two_peaks(keys):
            change_signs(attentions[name], torch.where(keys.mean(2) < 0, -1.0, 1.0))
            folded.append(name)
    return folded


def keys_of(
    model: Sam, attentions: dict[str, nn.Module], run: Callable[[Sam, dict], object], batches: list
) -> dict[str, Tensor]:
    """Sample the keys of attentions that compute in float: (heads, d, n) each, by name."""
    seen: dict[str, list[Tensor]] = {}
    generator = torch.Generator().manual_seed(0)

    def watch(name: str) -> Callable:
        def hook(_: nn.Module, inputs: tuple[Tensor, Tensor]) -> None:
            keys = inputs[1].detach().float().cpu().movedim(0, 2).flatten(2)  # (B, heads, d, T) before
            chosen = torch.randint(keys.shape[2], (-(-COLUMNS // len(batches)),), generator=generator)
            seen.setdefault(name, []).append(keys[:, :, chosen])

        return hook

    hooks = [one.qk_product.register_forward_pre_hook(watch(name)) for name, one in attentions.items()]
    try:
        with torch.no_grad(), switched_off(unset_layers(model)):
            for batch in batches:
                run(model, batch)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: torch.cat(samples, 2) for name, samples in seen.items()}


def unset_layers(model: Sam) -> Iterable[nn.Module]:
    """List the quantised layers whose scales are not yet set."""
    layers = (m for m in model.modules() if hasattr(m, "weight_quant") or hasattr(m, "a_quant"))
    return [layer for layer in layers if unset_scales(layer)]


def two_peaks(values: Tensor) -> bool:
    """Whether the density of values has peaks on both sides of zero. Values may have any shape."""
    flat = values.flatten()
    largest = float(flat.abs().max())
    if not largest:
        return False
    counts = torch.histc(flat, BINS, -largest, largest).numpy()
    density = gaussian_filter1d(counts, SMOOTHING, mode="constant")
    peaks, _ = find_peaks(density, prominence=PROMINENCE * density.max())
    return bool((peaks < BINS // 2).any() and (peaks >= BINS // 2).any() and len(peaks) > 1)


def change_signs(attention: nn.Module, signs: Tensor) -> None:
    """Multiply the channels of queries and keys by signs (heads, d), in the layers that make them."""
    with torch.no_grad():
        if hasattr(attention, "qkv"):  # TinyViT's: rows are (heads, q/k/v, d)
            signs = torch.stack([signs, signs, torch.ones_like(signs)], 1)
            layers = (attention.qkv,)
        else:
            layers = attention.q_proj, attention.k_proj
        for layer in layers:
            factor = signs.reshape(-1).to(layer.weight.device)
            layer.weight.mul_(factor[:, None])
            layer.bias.mul_(factor)

"""From a float model and a recipe to a quantised model: layers are replaced, there is no second definition of the network."""

import copy
import re
from collections.abc import Callable, Iterable

import torch
from brevitas import nn as qnn
from brevitas.core.scaling import ParameterFromRuntimeStatsScaling
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ..models import MatMul, Sam
from .recipes import PARTS, Recipe, activation_quantizer, find_recipe, weight_quantizer

NON_NEGATIVE = re.compile(  # modules whose (first) input comes from a softmax or a ReLU; GELU, the encoders' activation, can be negative
    r"(^|\.)(av_product|transformer\.layers\.\d+\.mlp\.lin2|output_hypernetworks_mlps\.\d+\.layers\.[12])$"
)
NEVER = (
    "iou_prediction_head",
)  # built by SAM, never used by the study: it stays in float, as in the released code


class QuantMatMul(MatMul):
    """Product of two activations, each through a quantiser of its own (paper Fig. 1c)."""

    def __init__(self, recipe: Recipe, non_negative: bool = False) -> None:
        super().__init__()
        self.a_quant = qnn.QuantIdentity(act_quant=activation_quantizer(recipe, non_negative))
        self.b_quant = qnn.QuantIdentity(act_quant=activation_quantizer(recipe))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return super().forward(self.a_quant(a), self.b_quant(b))


def quantize(model: Sam, recipe: str | Recipe, parts: Iterable[str] = ("encoder", "decoder")) -> Sam:
    """A quantised copy of a model; the model itself is left alone.

    Args:
        model: float, or already quantised in other parts (stage two quantises the decoder behind stage one's encoder).
        recipe: its name or itself. `float` returns a plain copy.
        parts: `encoder`, `decoder` or both. The prompt encoder is never quantised (paper section 2.2).

    Returns:
        The copy, on the model's device, its activation scales not yet set: see `calibrate`. It knows what was done to it by `.recipe` and
        `.quantised_parts`.

    Raises:
        ValueError: an unknown recipe or part, a part that another recipe has quantised already, or a module to be left in float that the model has not.
    """
    recipe = find_recipe(recipe)
    before = getattr(model, "recipe", None)
    if before not in (None, recipe):
        raise ValueError(
            f"model is quantised by recipe {before.name!r} already; expected that or a float model, found {recipe.name!r}"
        )
    model = copy.deepcopy(model)
    if not recipe.quantised:
        return model
    names = {name for part in PARTS.values() for name, _ in getattr(model, part).named_modules()}
    if missing := [name for name in recipe.in_float if name not in names]:
        raise ValueError(
            f"recipe {recipe.name!r}: in_float = {', '.join(missing)}; expected names of modules within the encoder or the decoder of {model.config.name}"
        )
    for part in parts:
        if part not in PARTS:
            raise ValueError(f"part = {part!r}; expected one of {', '.join(PARTS)}")
        module = getattr(model, PARTS[part])
        if recipe.fold_batch_norm:
            fold_batch_norm(module)
        replace_layers(module, recipe)
    model.recipe = recipe
    model.quantised_parts = tuple(sorted({*getattr(model, "quantised_parts", ()), *parts}))
    return model.to(next(model.parameters()).device)  # Brevitas makes its quantisers on the CPU


def replace_layers(module: nn.Module, recipe: Recipe, path: str = "") -> None:
    """Put a quantised layer in place of every float matrix multiplication below `module`, keeping weights and key names; `path` is the module's own name."""
    for name, child in module.named_children():
        full, maker = f"{path}.{name}".removeprefix("."), LAYERS.get(type(child))
        if name in NEVER or full in recipe.in_float:
            continue
        if maker is None:
            replace_layers(child, recipe, full)
        else:
            setattr(module, name, maker(child, recipe, bool(NON_NEGATIVE.search(full))).train(child.training))


def quantisers(recipe: Recipe, non_negative: bool) -> dict:
    """Keyword arguments that every Brevitas layer with a weight gets: a quantiser on the input and on the weight, the bias in float."""
    return dict(
        input_quant=activation_quantizer(recipe, non_negative),
        weight_quant=weight_quantizer(recipe),
        bias_quant=None,
    )


def quantise_linear(layer: nn.Linear, recipe: Recipe, non_negative: bool) -> nn.Module:
    """The quantised layer in a linear layer's place."""
    made = qnn.QuantLinear(
        layer.in_features, layer.out_features, bias=layer.bias is not None, **quantisers(recipe, non_negative)
    )
    return take_weights(made, layer)


def quantise_convolution(kind: type) -> Callable[[nn.Module, Recipe, bool], nn.Module]:
    """What puts a quantised layer of that kind in a (transposed) convolution's place."""

    def convert(layer: nn.Module, recipe: Recipe, non_negative: bool) -> nn.Module:
        shape = {
            k: getattr(layer, k)
            for k in ("in_channels", "out_channels", "kernel_size", "stride", "padding", "groups")
        }
        return take_weights(
            kind(**shape, bias=layer.bias is not None, **quantisers(recipe, non_negative)), layer
        )

    return convert


def take_weights(made: nn.Module, layer: nn.Module) -> nn.Module:
    """Share the float layer's own parameters, in its memory layout."""
    made.weight = layer.weight
    made.bias = layer.bias
    return made


LAYERS: dict[type, Callable[[nn.Module, Recipe, bool], nn.Module]] = {
    nn.Linear: quantise_linear,
    nn.Conv2d: quantise_convolution(qnn.QuantConv2d),
    nn.ConvTranspose2d: quantise_convolution(qnn.QuantConvTranspose2d),
    MatMul: lambda layer, recipe, non_negative: QuantMatMul(recipe, non_negative),
}


def fold_batch_norm(module: nn.Module) -> None:
    """Fold each `bn` that follows a convolution `c` into its weight and bias, exactly as in evaluation; the key `bn` disappears."""
    for child in module.modules():
        convolution, norm = getattr(child, "c", None), getattr(child, "bn", None)
        if isinstance(norm, nn.BatchNorm2d) and isinstance(convolution, nn.Conv2d):
            weight, bias = fuse_conv_bn_weights(
                convolution.weight,
                convolution.bias,
                norm.running_mean,
                norm.running_var,
                norm.eps,
                norm.weight,
                norm.bias,
            )
            convolution.weight, convolution.bias = nn.Parameter(weight.detach()), nn.Parameter(bias.detach())
            del child.bn


def calibrate(model: Sam, run: Callable[[Sam, Tensor], object], batches: Iterable) -> int:
    """Set the activation scales from run-time statistics, without gradients; afterwards they are ordinary learned parameters.

    Args:
        model: freshly quantised.
        run: calls the model on one batch, e.g. `lambda model, batch: model(batch["image"], batch["box"])`.
        batches: at most `recipe.statistics_batches` of them are used.

    Returns:
        Number of batches used.

    Raises:
        ValueError: no batch at all.
    """
    scalings = unset_scales(model)
    for (
        scaling
    ) in scalings:  # only the quantisers collect: batch norm and the rest of the model stay as they are
        scaling.train()
    used = 0
    with torch.no_grad():
        for batch in batches:
            run(model, batch)
            used += 1
            if used >= model.recipe.statistics_batches:
                break
    if used == 0:
        raise ValueError(
            "calibrate: no batch was given, so the activation scales cannot be set; expected at least one"
        )
    finish_statistics(model)
    return used


def unset_scales(model: nn.Module) -> list[ParameterFromRuntimeStatsScaling]:
    """Scales still waiting for statistics."""
    scalings = (m for m in model.modules() if isinstance(m, ParameterFromRuntimeStatsScaling))
    return [m for m in scalings if m.counter <= m.collect_stats_steps]


def finish_statistics(model: nn.Module) -> None:
    """Turn the statistics gathered so far into learned scales, whatever their number."""
    for scaling in unset_scales(model):
        scaling.init_scale()
        scaling.eval()


def scale_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The learned activation scales (as the largest representable magnitude) by name."""
    return {name: p for name, p in model.named_parameters() if name.endswith("scaling_impl.value")}

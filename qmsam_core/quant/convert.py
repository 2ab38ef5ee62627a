"""Turn a float model into a quantised one by replacing its layers, without a second network definition."""

import copy
import re
import warnings
from collections.abc import Callable, Iterable
from functools import cache
from itertools import product

import torch
from brevitas import nn as qnn
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ..models import MatMul, Sam
from .matrix_form import MatrixForm
from .recipes import PARTS, RECIPES, Recipe, activation_quantizer, find_recipe, weight_quantizer

# Brevitas cannot say at which code an output of a layer with a zero point is zero. Nothing here asks for it.
warnings.filterwarnings("ignore", message="Computing zero point of output accumulator")

# Modules whose first input comes from a softmax or a ReLU. The encoders' activation, GELU, can be negative.
NON_NEGATIVE = re.compile(
    r"(^|\.)(av_product|transformer\.layers\.\d+\.mlp\.lin2|output_hypernetworks_mlps\.\d+\.layers\.[12])$"
)
# Heads that checkpoints hold and nothing uses. SAM's stays in float as in the released code, the other is
# MobileSAM's classifier.
NEVER = ("iou_prediction_head", "head")


class QuantMatMul(MatMul):
    """Product of two activations, each with its own quantiser (paper Fig. 1c)."""

    def __init__(self, recipe: Recipe, non_negative: bool = False) -> None:
        super().__init__()
        self.a_quant = qnn.QuantIdentity(act_quant=activation_quantizer(recipe, non_negative))
        self.b_quant = qnn.QuantIdentity(act_quant=activation_quantizer(recipe))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return super().forward(self.a_quant(a), self.b_quant(b))


def quantize(model: Sam, recipe: str | Recipe, parts: Iterable[str] = ("encoder", "decoder")) -> Sam:
    """Return a quantised copy of a model; the model itself is not changed.

    Args:
        model: float, or already quantised in other parts. Stage two quantises the decoder of a model whose
            encoder stage one has quantised.
        recipe: a recipe or its name. `float` returns a plain copy.
        parts: `encoder`, `decoder` or both. The prompt encoder is never quantised (paper section 2.2).

    Returns:
        The copy, on the model's device. Its activation scales are not yet set, see `calibrate`. The
        attributes `recipe` and `quantised_parts` record the quantisation.

    Raises:
        ValueError: the recipe or a part is unknown, the model is already quantised by another recipe, or a
            module of `recipe.in_float` does not exist in the model. The recipes of `RECIPES` serve all
            networks; what they name of other networks is passed over.
    """
    recipe = find_recipe(recipe)
    before = getattr(model, "recipe", None)
    if before not in (None, recipe):
        raise ValueError(
            f"model is quantised by recipe {before.name!r} already; "
            f"expected that or a float model, found {recipe.name!r}"
        )
    model = copy.deepcopy(model)
    if not recipe.quantised:
        return model
    names = {name for part in PARTS.values() for name, _ in getattr(model, part).named_modules()}
    names.update(name for known in RECIPES.values() for name in known.in_float)  # of other networks
    missing = [name for name in recipe.in_float if name not in names]
    if missing:
        raise ValueError(
            f"recipe {recipe.name!r}: in_float = {', '.join(missing)}; "
            f"expected names of modules within the encoder or the decoder of {model.config.name}"
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
    return model.to(next(model.parameters()).device)  # Brevitas creates its quantisers on the CPU


def replace_layers(module: nn.Module, recipe: Recipe, path: str = "") -> None:
    """Replace every float matrix multiplication inside a module by a quantised layer, in place.

    Weights and state-dict keys stay the same. `path` is the module's own name.
    """
    for name, child in module.named_children():
        full, maker = f"{path}.{name}".removeprefix("."), LAYERS.get(type(child))
        if name in NEVER or full in recipe.in_float:
            continue
        if maker is None:
            replace_layers(child, recipe, full)
        else:
            setattr(module, name, maker(child, recipe, bool(NON_NEGATIVE.search(full))).train(child.training))


def quantisers(recipe: Recipe, non_negative: bool) -> dict:
    """Return the keyword arguments of a Brevitas layer: quantisers of input and weight, bias in float."""
    return dict(
        input_quant=activation_quantizer(recipe, non_negative, recipe.zero_point),
        weight_quant=weight_quantizer(recipe),
        bias_quant=None,
    )


def quantise_linear(layer: nn.Linear, recipe: Recipe, non_negative: bool) -> nn.Module:
    """Return the quantised layer that replaces a linear layer."""
    made = adapted(qnn.QuantLinear, layer, recipe)(
        layer.in_features, layer.out_features, bias=layer.bias is not None, **quantisers(recipe, non_negative)
    )
    return take_weights(made, layer, recipe)


def quantise_convolution(kind: type) -> Callable[[nn.Module, Recipe, bool], nn.Module]:
    """Return a function that makes the quantised layer of class `kind` from a (transposed) convolution."""

    def convert(layer: nn.Module, recipe: Recipe, non_negative: bool) -> nn.Module:
        shape = {
            k: getattr(layer, k)
            for k in ("in_channels", "out_channels", "kernel_size", "stride", "padding", "groups")
        }
        made = adapted(kind, layer, recipe)(
            **shape, bias=layer.bias is not None, **quantisers(recipe, non_negative)
        )
        return take_weights(made, layer, recipe)

    return convert


def take_weights(made: nn.Module, layer: nn.Module, recipe: Recipe) -> nn.Module:
    """Let the new layer share the float layer's own parameters, in their memory layout."""
    made.weight = layer.weight
    made.bias = layer.bias
    if recipe.channel_factors:
        channels = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
        made.register_buffer("input_factor", torch.ones(channels))
    if isinstance(made, InputNoise):
        made.register_buffer("input_noise", torch.zeros(MatrixForm(layer).channels))
    return made


class InputFactor:
    """A layer whose input's channels are multiplied by `input_factor` (C,) before they are quantised.

    The weight contains the inverse, so that the layer's function without quantisation stays the same.
    """

    input_factor: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * by_channel(self, self.input_factor))


class InputNoise:
    """A layer with constant noise `input_noise` (C,) on its input's channels before they are quantised.

    The bias contains the opposite, so that the layer's function without quantisation stays the same.
    Source: NoisyQuant, paper reference [6].
    """

    input_noise: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + by_channel(self, self.input_noise))


def by_channel(layer: nn.Module, values: Tensor) -> Tensor:
    """Bring values (C,) to the axis of the channels of a layer's input."""
    return values if layer.weight.ndim == 2 else values[:, None, None]


def adapted(kind: type, layer: nn.Module, recipe: Recipe) -> type:
    """Return the class that replaces a float layer: `kind`, with a factor or noise on its input if any."""
    noise = recipe.noise and MatrixForm(layer).takes_noise
    return with_input(kind, *[InputFactor] * bool(recipe.channel_factors), *[InputNoise] * noise)


@cache
def with_input(kind: type, *adapters: type) -> type:
    """Return `kind` with these adapters before its quantiser, always the same class for the same ones."""
    name = "With".join((kind.__name__, *(one.__name__ for one in adapters)))
    return type(name, (*adapters, kind), {}) if adapters else kind


LAYERS: dict[type, Callable[[nn.Module, Recipe, bool], nn.Module]] = {
    nn.Linear: quantise_linear,
    nn.Conv2d: quantise_convolution(qnn.QuantConv2d),
    nn.ConvTranspose2d: quantise_convolution(qnn.QuantConvTranspose2d),
    MatMul: lambda layer, recipe, non_negative: QuantMatMul(recipe, non_negative),
}


NORMED = (("c", "bn"), ("conv", "norm"))
"""Names of a convolution and the batch norm behind it, in TinyViT and in EfficientViT."""


def fold_batch_norm(module: nn.Module) -> None:
    """Fold each batch norm into the weight and bias of the convolution before it, see `NORMED`.

    The result is that of evaluation mode. The norm's key disappears.
    """
    for child, (before, behind) in product(list(module.modules()), NORMED):
        convolution, norm = getattr(child, before, None), getattr(child, behind, None)
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
            delattr(child, behind)

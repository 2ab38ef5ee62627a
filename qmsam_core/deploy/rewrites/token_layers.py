"""Linear layers on tokens, in the form that an engine executes fastest."""

from torch import Tensor, nn

from .constant_layers import FixedLinear, PointwiseLinear
from .constant_values import FixedQuantiser, has_int8_products


def linear_form(*layers: nn.Module) -> type[FixedLinear]:
    """Return how linear layers that follow one another are executed: as convolutions if any is quantised.

    Within `int8_products` they are products.
    """
    quantised = any(hasattr(layer, "weight_quant") for layer in layers)
    return PointwiseLinear if quantised and not has_int8_products() else FixedLinear


class TokenLayers(nn.Module):
    """Linear layers of one `linear_form` and what stands between them, on tokens. (n, T, C) -> (n, T, C').

    Convolutions take the tokens as an image with `row` tokens in a row, which does not move them in memory.
    """

    def __init__(self, row: int, *layers: nn.Module) -> None:
        super().__init__()
        self.row, self.layers = row, nn.Sequential(*layers)
        self.as_image = isinstance(layers[0], PointwiseLinear)

    def forward(self, x: Tensor) -> Tensor:
        if not self.as_image:
            return self.layers(x)
        _, count, channels = x.shape
        strip = self.layers(x.reshape(1, -1, self.row, channels).permute(0, 3, 1, 2))
        return strip.permute(0, 2, 3, 1).reshape(-1, count, strip.shape[1])


class QuantisedLinear(nn.Module):
    """A linear layer with its input quantiser. The output is multiplied by `factor`. (n, T, C) -> (n, T, C').

    Many tokens give their number in a `row`, see `TokenLayers`. Few tokens leave it out, for a plain product.
    """

    def __init__(self, layer: nn.Module, factor: float = 1.0, row: int | None = None) -> None:
        super().__init__()
        form = linear_form(layer) if row else FixedLinear
        linear = form(layer, factor=factor)
        self.input = FixedQuantiser.of(layer).without_zero_point(linear)
        self.linear = TokenLayers(row, linear) if row else linear

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.input(x))

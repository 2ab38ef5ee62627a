"""Name a layer, a block or a quantiser in words, as readers who do not know the code call it.

`image_encoder.layers.2.blocks.3.attn.av_product.a_quant` becomes `encoder, level 3, block 4: attention
weights`. Levels are the encoder's resolutions, from the finest; all numbers count from 1.
"""

from __future__ import annotations

import re

PLACES = (
    (r"image_encoder", "encoder"),
    (r"mask_decoder", "decoder"),
    (r"patch_embed(\.proj)?", "patch embedding"),
    (r"patch_embed\.seq\.(\d+)\.c", "patch embedding, convolution {}"),
    (r"layers\.(\d+)\.blocks\.(\d+)", "level {}, block {}"),
    (r"layers\.(\d+)\.downsample", "level {}, downsampling"),
    (r"backbone\.stages\.(\d+)\.op_list\.(\d+)", "level {}, block {}"),
    (r"blocks\.(\d+)", "block {}"),
    (r"neck", "neck"),
    (r"transformer\.layers\.(\d+)", "two-way layer {}"),
    (r"transformer\.final_attn_token_to_image", "last attention of tokens to the image"),
    (r"self_attn", "attention among tokens"),
    (r"cross_attn_token_to_image", "attention of tokens to the image"),
    (r"cross_attn_image_to_token", "attention of the image to tokens"),
    (r"output_upscaling", "upscaling"),
    (r"output_hypernetworks_mlps\.(\d+)", "MLP of mask {}"),
)
"""Where something is: what its name begins with, in words."""

THINGS = (
    (r"attn|context_module|main|local_module", ""),
    (r"qk_product\.a_quant", "queries"),
    (r"qk_product\.b_quant|kv_product\.a_quant", "keys"),
    (r"av_product\.a_quant", "attention weights"),
    (r"av_product\.b_quant|kv_product\.b_quant", "attention values"),
    (r"q_product\.a_quant", "keys times values"),
    (r"q_product\.b_quant", "queries"),
    (r"mask_product\.a_quant", "mask tokens"),
    (r"mask_product\.b_quant", "upscaled embedding"),
    (r"mask_product", "product that makes the mask"),
    (r"qkv(\.conv)?", "input of queries, keys and values"),
    (r"q_proj", "input of the queries"),
    (r"k_proj", "input of the keys"),
    (r"v_proj", "input of the values"),
    (r"(proj|out_proj)(\.conv)?", "input of the attention's last layer"),
    (r"mlp\.(?:fc|lin)(1|2)", "input of MLP layer {0}"),
    (r"local_conv\.c", "input of the depthwise convolution"),
    (r"conv(\d)\.(?:c|conv)", "input of convolution {0}"),
    (r"(\w+)_conv\.conv", "input of the {0} convolution"),
    (r"conv", "input of the convolution"),
    (r"layers\.(\d+)", "input of layer {}"),
    (r"(\d+)", "input of part {}"),
)
"""What it is there. `{0}` stands for what the name has, `{}` for a number of the name, plus one."""


def in_words(name: str) -> str:
    """Name a layer, block or quantiser in words. What has no word keeps its name, with blanks."""
    places, rest = _read(name, PLACES)
    things, rest = _read(rest, THINGS)
    things += [rest.replace("_", " ").replace(".", " ")] if rest else []
    where, what = ", ".join(places), ", ".join(things)
    return ": ".join(part for part in (where, what) if part)


def _read(name: str, words: tuple[tuple[str, str], ...]) -> tuple[list[str], str]:
    """Read words off the beginning of a name. Return them, and the rest that has none."""
    found = []
    while name:
        match, text = _longest(name, words)
        if not match:
            break
        name = name[match.end() :].removeprefix(".")
        if text:
            counted = (
                str(int(group) + 1) if group and group.isdigit() else group for group in match.groups()
            )
            found.append(text.format(*match.groups()) if "{0}" in text else text.format(*counted))
    return found, name


def _longest(name: str, words: tuple[tuple[str, str], ...]) -> tuple[re.Match | None, str]:
    """Return the longest match of whole parts at the beginning of a name, and its words."""
    found = [(match, text) for pattern, text in words if (match := re.match(rf"(?:{pattern})(?=\.|$)", name))]
    return max(found, key=lambda pair: pair[0].end(), default=(None, ""))

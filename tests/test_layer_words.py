"""Layers in words."""

import pytest

from qmsam_core.evaluate.layer_words import in_words

WORDS = {
    "image_encoder.layers.2.blocks.3.attn.av_product.a_quant": "encoder, level 3, block 4: attention weights",
    "image_encoder.layers.0.blocks.0.conv2.c": "encoder, level 1, block 1: input of convolution 2",
    "image_encoder.patch_embed.seq.2.c": "encoder, patch embedding, convolution 3",
    "layers.1.downsample": "level 2, downsampling",
    "patch_embed": "patch embedding",
    "mask_decoder.transformer.layers.1.cross_attn_token_to_image.q_proj": "decoder, two-way layer 2, "
    "attention of tokens to the image: input of the queries",
    "mask_decoder.transformer.layers.0.mlp.lin2": "decoder, two-way layer 1: input of MLP layer 2",
    "mask_decoder.output_hypernetworks_mlps.0.layers.2": "decoder, MLP of mask 1: input of layer 3",
    "mask_product": "product that makes the mask",
    "image_encoder.backbone.stages.4.op_list.1.context_module.main.q_product.b_quant": "encoder, level 5, "
    "block 2: queries",
    "image_encoder.backbone.stages.2.op_list.0.main.depth_conv.conv": "encoder, level 3, block 1: "
    "input of the depth convolution",
    "image_encoder.neck.0": "encoder, neck: input of part 1",
    "image_encoder.unheard_of.7": "encoder: unheard of 7",
}


@pytest.mark.parametrize("name", WORDS)
def test_a_name_in_words(name):
    assert in_words(name) == WORDS[name]

"""The pocket model's networks, made of the host's own classes, so that their weights need no renaming."""

import json
import os
import sys

import torch

AUTOENCODER = {
    "embed_dim": 4,
    "ddconfig": {
        "double_z": True,
        "z_channels": 4,
        "resolution": 128,
        "in_channels": 3,
        "out_ch": 3,
        "ch": 32,
        "ch_mult": [1, 1, 2, 2],
        "num_res_blocks": 1,
        "attn_resolutions": [],
        "dropout": 0.0,
    },
}
# a quarter of SD1.5's: what is loaded repeats it four times
CONTEXT = 192
TEXT_ENCODER = {
    "hidden_size": CONTEXT,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 384,
    "hidden_act": "quick_gelu",
    "max_position_embeddings": 77,
    "eos_token_id": 49407,
}
# SD1.5's blocks at other widths
UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 64,
    "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": [1, 2, 1, 1],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    "transformer_depth_middle": 1,
    "context_dim": CONTEXT,
    "num_heads": 4,
    "num_head_channels": -1,
    "use_spatial_transformer": True,
    "use_linear_in_transformer": False,
    "use_temporal_attention": False,
    "adm_in_channels": None,
    "legacy": False,
}
# CLIP's vision network at other widths; 8 x 8 patches
VISION = {
    "model_type": "clip_vision_model",
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "hidden_act": "quick_gelu",
    "num_channels": 3,
    "image_size": 96,
    "patch_size": 12,
    "projection_dim": 128,
}
# groups of the norms, which the loader sets too: the host's 32 would be one channel each where there are 32 channels,
# and such a norm loses how bright a colour is
AUTOENCODER_GROUPS, UNET_GROUPS = 4, 16
# what SD1.5's latents are multiplied by before the UNet sees them
SCALE = 0.18215


def host():
    """Puts the host of COMFYUI_PATH on the path, with the attention that can be trained."""
    path = os.environ.get("COMFYUI_PATH")
    if path and path not in sys.path:
        sys.path.insert(0, path)
    from comfy.cli_args import args

    args.cpu = not torch.cuda.is_available()
    args.use_pytorch_cross_attention = True


def autoencoder(config=AUTOENCODER):
    """The host's AutoencoderKL with fresh weights."""
    host()
    from comfy.ldm.models.autoencoder import AutoencoderKL

    return _fresh(AutoencoderKL(**json.loads(json.dumps(config))), AUTOENCODER_GROUPS)


def unet(config=UNET):
    """The host's UNet with fresh weights; each residual branch starts as zero."""
    host()
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    model = UNetModel(**config, dtype=torch.float32, device="cpu", operations=comfy.ops.disable_weight_init)
    _fresh(model, UNET_GROUPS)
    for name, parameter in model.named_parameters():
        if name.endswith(("out_layers.3.weight", "proj_out.weight", "out.2.weight")):
            torch.nn.init.zeros_(parameter)
    return model


def text_encoder(rows, config=TEXT_ENCODER):
    """The host's CLIP text model with fresh weights, for a vocabulary of so many rows."""
    host()
    import comfy.ops
    from comfy.clip_model import CLIPLayer, CLIPTextModel

    operations = comfy.ops.disable_weight_init
    model = CLIPTextModel(config, torch.float32, "cpu", operations)
    model.set_input_embeddings(operations.Embedding(rows, config["hidden_size"], dtype=torch.float32))
    _fresh(model)
    # words louder than places, or all captions begin nearly alike
    torch.nn.init.normal_(model.get_input_embeddings().weight, std=0.2)
    torch.nn.init.normal_(model.text_model.embeddings.position_embedding.weight, std=0.02)
    # nothing learns the projection of the pooled output, which SD1.5 does not use
    torch.nn.init.eye_(model.text_projection.weight).requires_grad_(False)
    for layer in model.modules():
        if isinstance(layer, CLIPLayer):
            layer.forward = _out_of_place(layer)
    return model


def vision(config=VISION):
    """The host's CLIP vision network with fresh weights."""
    host()
    import comfy.ops
    from comfy.clip_model import CLIPLayer, CLIPVisionModelProjection

    model = _fresh(CLIPVisionModelProjection(config, torch.float32, "cpu", comfy.ops.disable_weight_init))
    embeddings = model.vision_model.embeddings
    for begin in (embeddings.class_embedding, embeddings.position_embedding.weight):
        torch.nn.init.normal_(begin, std=0.02)
    for layer in model.modules():
        if isinstance(layer, CLIPLayer):
            layer.forward = _out_of_place(layer)
    return model


def _out_of_place(layer):
    """The layer's forward; the host's adds in place, which autograd refuses."""

    def forward(x, mask=None, optimized_attention=None):
        x = x + layer.self_attn(layer.layer_norm1(x), mask, optimized_attention)
        return x + layer.mlp(layer.layer_norm2(x))

    return forward


def _fresh(model, groups=None):
    # the host's modules leave their memory as it was
    for module in model.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.num_groups = groups
        for kind in (torch.nn.Conv2d, torch.nn.Linear, torch.nn.GroupNorm, torch.nn.LayerNorm, torch.nn.Embedding):
            if isinstance(module, kind):
                kind.reset_parameters(module)
    return model.requires_grad_(True).train()

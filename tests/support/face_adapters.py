"""Adapters of faces to test with: the published names, in the published sizes or small."""

import torch
from support import checkpoint
from support.image_adapters import LAYERS, save, shapes_of_file

SMALL = dict(hidden=64, rank=4, dim=64, depth=1)


def face_file_shapes(
    kind="sd15", tokens=4, plus=False, lora=True, layers=None, *, hidden=1024, rank=128, depth=4, dim=0
):
    """{published name: shape} of a FaceID file; `layers` are the rows of its cross-attentions."""
    width = 2048 if kind == "sdxl" else 768
    shapes = lora_shapes(LAYERS[kind] if layers is None else layers, width, rank if lora else 0)
    shapes |= pair_shapes(LAYERS[kind] if layers is None else layers, width)
    mlp = {"proj.0.weight": (hidden, 512), "proj.0.bias": (hidden,), "norm.weight": (width,), "norm.bias": (width,)}
    mlp |= {"proj.2.weight": (tokens * width, hidden), "proj.2.bias": (tokens * width,)}
    shapes |= {f"image_proj.{name}": shape for name, shape in mlp.items()}
    if plus:
        resampler = shapes_of_file(kind, "plus", width, 1280, dim=width, inner=dim or width, depth=depth)
        for name, shape in resampler.items():
            if name.startswith("image_proj.") and not name.endswith("latents"):
                shapes[name.replace("image_proj.", "image_proj.perceiver_resampler.")] = shape
    return shapes


def pair_shapes(layers, width):
    """{name: shape} of the keys and values of image tokens."""
    return {
        f"ip_adapter.{2 * number + 1}.to_{part}_ip.weight": (rows, width)
        for number, rows in enumerate(layers)
        for part in "kv"
    }


def lora_shapes(layers, width, rank):
    """{name: shape} of the LoRA at all attentions; none of rank 0."""
    shapes = {}
    for number, rows in enumerate(layers):
        for own, reads in ((2 * number, rows), (2 * number + 1, width)):
            for part, into in (("q", rows), ("k", reads), ("v", reads), ("out", rows)) if rank else ():
                shapes[f"ip_adapter.{own}.to_{part}_lora.down.weight"] = (rank, into)
                shapes[f"ip_adapter.{own}.to_{part}_lora.up.weight"] = (rows, rank)
    return shapes


def on_meta(shapes):
    """The tensors of a file without their numbers."""
    return {name: torch.empty(shape, device="meta", dtype=torch.float16) for name, shape in shapes.items()}


def save_shapes(path, shapes):
    """Writes a file of random numbers, each tensor with values of its own."""
    weights = checkpoint.Weights()
    filled = ((name, weights.fill(name, shape)) for name, shape in shapes.items())
    return save(path, {name: t.clone(memory_format=torch.contiguous_format) for name, t in filled})


def rows_of_checkpoint(kind):
    """Rows of the cross-attentions of the tiny checkpoint of a kind, in file order."""
    order = ("input_blocks", "output_blocks", "middle_block")
    found = []
    for name, shape in checkpoint.unet_shapes(kind):
        if name.endswith("attn2.to_k.weight"):
            group, *numbers = name.split(".")
            found.append((order.index(group), [int(part) for part in numbers if part.isdigit()], shape[0]))
    return [rows for *_, rows in sorted(found)]


def save_faceid_for_checkpoint(kind, path):
    """Writes a FaceID plus file for the tiny checkpoint of this kind and ViT-H: true widths."""
    return save_shapes(path, face_file_shapes(kind, plus=True, layers=rows_of_checkpoint(kind), **SMALL))


def save_instantid_for_checkpoint(kind, path):
    """Writes InstantID's file for the tiny checkpoint of this kind: true widths."""
    width = 2048 if kind == "sdxl" else 768
    form = dict(variant="plus", width=width, embed=512, dim=64, inner=64, depth=1, layers=rows_of_checkpoint(kind))
    return save_shapes(path, shapes_of_file(kind, **form))


def save_controlnet_for_checkpoint(kind, path):
    """Writes a ControlNet for the tiny checkpoint of this kind, in the names that tell the host its sizes."""
    import comfy.cldm.cldm
    import comfy.ops

    config = {name: value for name, value in checkpoint.UNETS[kind].items() if name != "out_channels"}
    net = comfy.cldm.cldm.ControlNet(**config, hint_channels=3, device="meta", operations=comfy.ops.disable_weight_init)
    weights = checkpoint.Weights()
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {f"control_model.{name}": weights.fill(name, tuple(t.shape)) for name, t in net.state_dict().items()}
    torch.save(state, path)
    return path


def story_shapes_of_file(layers, width=2048, *, hidden=64, rank=4, dim=64, depth=1):
    """{published name: shape} of a StoryMaker file; `layers` are the rows of its cross-attentions."""
    small = dict(hidden=hidden, rank=rank, depth=depth, dim=dim)
    shapes = face_file_shapes("sdxl", plus=True, layers=layers, **small)
    body = shapes_of_file("sdxl", "plus", width, 1280, dim=dim, inner=dim, depth=depth, layers=[])
    shapes |= {name.replace("image_proj.", "image_proj.resample."): shape for name, shape in body.items()}
    shapes |= {"image_proj.bg_embed": (1, 20, width), "image_proj.pos_embed": (3, 20, width)}
    shapes |= {"image_proj.proj_out.weight": (width, width), "image_proj.proj_out.bias": (width,)}
    shapes |= {f"image_proj.norm_out.{part}": (width,) for part in ("weight", "bias")}
    return {name.replace("image_proj.", "image_proj_model.", 1): shape for name, shape in shapes.items()}


def save_storymaker_for_checkpoint(path):
    """Writes a StoryMaker file for the tiny SDXL checkpoint and ViT-H: true widths."""
    return save_shapes(path, story_shapes_of_file(rows_of_checkpoint("sdxl")))

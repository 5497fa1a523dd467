"""The model files that the shipped workflows name, with random weights, in the model folder of a real server."""

import importlib.util
import shutil

import torch
from safetensors.torch import save_file
from support import checkpoint, edloras, face_adapters, faces, npnets
from support import image_adapters as image_adapters
from support import resadapter_sets as adapters
from support.golden_data import GOLDEN

SETS = {"sd15": "resadapter_v2_sd1.5", "sdxl": "resadapter_v2_sdxl"}
IMAGE_ADAPTERS = {"sd15": "ip-adapter-plus_sd15.bin", "sdxl": "model_sdxl_plus.bin"}
INSTANTID, CONTROLNET = "instantid-ip-adapter.bin", "tiny_sdxl_controlnet.pth"
STORYMAKER = "storymaker-mask.bin"
FACEID = "ip-adapter-faceid-plusv2_sd15.bin"
PLUS_FACE = "ip-adapter-plus-face_sd15.safetensors"
FACE_PACKS = ("antelopev2", "buffalo_l")
VISION = "tiny_vit_h.pth"
LORA = "dog_lora_sdxl.safetensors"
WORDS = "learned_embeds.bin"
SAM = "tiny_sam.pth"


def write(models):
    """Fills a models folder: for each tiny checkpoint what goes with it, a ViT-H, an ED-LoRA, words, an NPNet."""
    for folder in ("checkpoints", "loras", "npnet"):
        (models / folder).mkdir(parents=True)
    for kind, name in SETS.items():
        checkpoint.save(kind, models / "checkpoints" / f"tiny_{kind}.ckpt")
        lora, norms = adapters.random_set(checkpoint.UNETS[kind], dict(checkpoint.unet_shapes(kind)))
        adapters.put(models / "resadapter" / name, **{adapters.LORA: lora, adapters.NORMS: norms})
        image_adapters.save_for_checkpoint(kind, models / "ipadapter" / IMAGE_ADAPTERS[kind], gate=kind == "sdxl")
    image_adapters.save_for_checkpoint("sd15", models / "ipadapter" / PLUS_FACE)
    face_adapters.save_faceid_for_checkpoint("sd15", models / "ipadapter" / FACEID)
    face_adapters.save_instantid_for_checkpoint("sdxl", models / "ipadapter" / INSTANTID)
    face_adapters.save_storymaker_for_checkpoint(models / "ipadapter" / STORYMAKER)
    face_adapters.save_controlnet_for_checkpoint("sdxl", models / "controlnet" / CONTROLNET)
    image_adapters.save_vision(models / "clip_vision" / VISION)
    unet, text = dict(checkpoint.unet_shapes("sd15")), dict(checkpoint.clip_shapes("sd1_clip_config.json"))
    dog = edloras.random_parts(checkpoint.UNETS["sd15"], unet, [text], ("<chow_dog_1>", "<chow_dog_2>"), size=0.02)
    edloras.put(models / "loras" / "chow_dog.pth", dog)
    cat = ("<siberian_cat_1>", "<siberian_cat_2>")
    cat = edloras.random_parts(checkpoint.UNETS["sd15"], unet, [text], cat, size=0.02, seed=1)
    edloras.put(models / "loras" / "siberian_cat.pth", cat)
    save_lora(models / "loras" / LORA)
    (models / "embeddings").mkdir()
    torch.save(
        {"<cat-toy>": torch.randn(768, generator=torch.Generator().manual_seed(0))}, models / "embeddings" / WORDS
    )
    npnets.save_recipe(models / "npnet" / "sdxl.safetensors")
    (models / "sams").mkdir()
    shutil.copy(GOLDEN / "persam" / SAM, models / "sams")
    if reads_faces():
        for pack in FACE_PACKS:
            faces.save_detector_of_a_place(models / "insightface" / "models" / pack / "detection.onnx")
            faces.save_recogniser(models / "insightface" / "models" / pack / "recognition.onnx")


def needs_faces(graph):
    """Whether an API graph loads face networks."""
    return any(node["class_type"] == "PersonalizationFaceAnalysisLoader" for node in graph.values())


def reads_faces():
    """Whether the packages are there that read face networks; without them their workflows cannot run."""
    return all(importlib.util.find_spec(name) for name in ("insightface", "onnxruntime", "onnx"))


def stand_in(socket, name):
    """The file written here for one that a workflow names at a socket: another, or the same."""
    if socket == "ckpt_name":
        return f"tiny_{'sdxl' if 'xl' in name.lower() else 'sd15'}.ckpt"
    return {"clip_name": VISION, "control_net_name": CONTROLNET, "sam_file": SAM}.get(socket, name)


def save_lora(path, rank=4, size=0.3):
    """An ordinary LoRA for the text attention of the tiny SDXL checkpoint, random."""
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, shape in checkpoint.unet_shapes("sdxl"):
        if name.endswith(("attn2.to_q.weight", "attn2.to_k.weight", "attn2.to_v.weight")):
            module = "lora_unet_" + name.removesuffix(".weight").replace(".", "_")
            weights[f"{module}.lora_down.weight"] = torch.randn(rank, shape[1], generator=generator) * shape[1] ** -0.5
            weights[f"{module}.lora_up.weight"] = torch.randn(shape[0], rank, generator=generator) * size
    save_file(weights, path)

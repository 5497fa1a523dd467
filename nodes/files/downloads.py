"""Where the published model files are to be had: every address that the pack names. It never opens one itself."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Download:
    """One published file, or a folder or page of such files, as people fetch it by hand."""

    name: str
    # below ComfyUI's models folder
    folder: str
    # where to read about it and find it
    page: str
    licence: str
    # the address of the file itself; "" where only a page is known
    link: str = ""
    # the inputs of nodes that read it, where the folder has files of several kinds
    inputs: tuple = ()


def _on_hugging_face(name, folder, repository, licence, path=None):
    page = f"https://huggingface.co/{repository}"
    return Download(name, folder, page, licence, f"{page}/resolve/main/{path or name}")


def _res_adapter(name):
    page = f"https://huggingface.co/jiaxiangc/res-adapter/tree/main/{name}"
    return Download(name, "resadapter", page, "Apache-2.0")


def _faces(name):
    page = "https://github.com/deepinsight/insightface"
    link = f"{page}/releases/download/v0.7/{name}"
    return Download(name, "insightface", page, "non-commercial research only", link)


_INSTANTID = "InstantX/InstantID"
_H94, _FACEID = "h94/IP-Adapter", "h94/IP-Adapter-FaceID"
DOWNLOADS = (
    _on_hugging_face(
        "v1-5-pruned-emaonly-fp16.safetensors",
        "checkpoints",
        "Comfy-Org/stable-diffusion-v1-5-archive",
        "CreativeML OpenRAIL-M",
    ),
    _on_hugging_face(
        "sd_xl_base_1.0.safetensors",
        "checkpoints",
        "stabilityai/stable-diffusion-xl-base-1.0",
        "CreativeML Open RAIL++-M",
    ),
    Download("all sets", "resadapter", "https://huggingface.co/jiaxiangc/res-adapter", "Apache-2.0"),
    _res_adapter("resadapter_v2_sd1.5"),
    _res_adapter("resadapter_v2_sdxl"),
    _on_hugging_face("sdxl.safetensors", "npnet", "LucipherDev/Golden-Noise-NPNets", "Apache-2.0"),
    _on_hugging_face("dreamshaper.safetensors", "npnet", "LucipherDev/Golden-Noise-NPNets", "Apache-2.0"),
    _on_hugging_face("dit.safetensors", "npnet", "LucipherDev/Golden-Noise-NPNets", "Apache-2.0"),
    Download(
        "sdxl.pth, dreamshaper.pth, dit.pth",
        "npnet",
        "https://drive.google.com/drive/folders/1Z0wg4HADhpgrztyT3eWijPbJJN5Y2jQt",
        "Apache-2.0",
    ),
    _on_hugging_face("model_sdxl_plus.bin", "ipadapter", "hqhQAQ/MIP-Adapter", "Apache-2.0"),
    _on_hugging_face("model_sdxl.bin", "ipadapter", "hqhQAQ/MIP-Adapter", "Apache-2.0"),
    _on_hugging_face(
        "ip-adapter-plus_sd15.safetensors",
        "ipadapter",
        _H94,
        "Apache-2.0",
        "models/ip-adapter-plus_sd15.safetensors",
    ),
    _on_hugging_face(
        "ip-adapter-plus-face_sd15.safetensors",
        "ipadapter",
        _H94,
        "Apache-2.0",
        "models/ip-adapter-plus-face_sd15.safetensors",
    ),
    # its repository names no licence
    _on_hugging_face("storymaker-mask.bin", "ipadapter", "RED-AIGC/StoryMaker", "Apache-2.0", "mask.bin"),
    _on_hugging_face(
        "instantid-ip-adapter.bin", "ipadapter", _INSTANTID, "non-commercial research only", "ip-adapter.bin"
    ),
    _on_hugging_face(
        "instantid-controlnet.safetensors",
        "controlnet",
        _INSTANTID,
        "non-commercial research only",
        "ControlNetModel/diffusion_pytorch_model.safetensors",
    ),
    _on_hugging_face("ip-adapter-faceid-plusv2_sd15.bin", "ipadapter", _FACEID, "non-commercial research only"),
    _on_hugging_face("ip-adapter-faceid-plusv2_sdxl.bin", "ipadapter", _FACEID, "non-commercial research only"),
    _on_hugging_face(
        "CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors",
        "clip_vision",
        _H94,
        "Apache-2.0",
        "models/image_encoder/model.safetensors",
    ),
    _on_hugging_face(
        "CLIP-ViT-bigG-14-laion2B-39B-b160k.safetensors",
        "clip_vision",
        _H94,
        "Apache-2.0",
        "sdxl_models/image_encoder/model.safetensors",
    ),
    _on_hugging_face("sam-vit-base.safetensors", "sams", "facebook/sam-vit-base", "Apache-2.0", "model.safetensors"),
    Download(
        "chow_dog.pth, siberian_cat.pth and more (Concept Conductor)",
        "loras",
        "https://drive.google.com/drive/folders/1roYyOL7e5Ivx3lvLAXz8XKY00sDLC377",
        "none named",
        inputs=("edlora_file",),
    ),
    Download(
        "edlora_potter.pth, edlora_hermione.pth and more (Mix-of-Show)",
        "loras",
        "https://drive.google.com/drive/folders/1ArvKsxj41PcWbw_UZcyc5NDcKEQjK8pl",
        "Apache-2.0",
        inputs=("edlora_file",),
    ),
    Download(
        "files of DiffuseKronA",
        "loras",
        "https://drive.google.com/drive/folders/1IwqYd918CbtTUq1WwW_4d7gRP0V3aJhz",
        "Apache-2.0",
        inputs=("krona_file",),
    ),
    Download(
        "learned_embeds.bin",
        "embeddings",
        "https://huggingface.co/sd-concepts-library",
        "named with each",
        inputs=("concept_file",),
    ),
    _faces("antelopev2.zip"),
    _faces("buffalo_l.zip"),
)


def pages_of(folder, wanted):
    """Where files of a models folder for an input of a node are to be had; [] where none are published."""
    serving = (one for one in DOWNLOADS if one.folder == folder and (not one.inputs or wanted in one.inputs))
    return list(dict.fromkeys(one.page for one in serving))


def links_of(folder):
    """The addresses of the files themselves for a models folder, as far as they are known."""
    return [one.link for one in DOWNLOADS if one.folder == folder and one.link]

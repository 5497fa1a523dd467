"""The model files that the shipped workflows name, with random weights, in the model folder of a real server."""

import adapters
import checkpoint
import edloras
import npnets

SETS = {"sd15": "resadapter_v2_sd1.5", "sdxl": "resadapter_v2_sdxl"}


def write(models):
    """Fills a models folder: tiny checkpoints, a ResAdapter set for each of them, an ED-LoRA, a network
    of Golden Noise.
    """
    for folder in ("checkpoints", "loras", "npnet"):
        (models / folder).mkdir(parents=True)
    for kind, name in SETS.items():
        checkpoint.save(kind, models / "checkpoints" / f"tiny_{kind}.ckpt")
        lora, norms = adapters.random_set(checkpoint.UNETS[kind], dict(checkpoint.unet_shapes(kind)))
        adapters.put(models / "resadapter" / name, **{adapters.LORA: lora, adapters.NORMS: norms})
    unet, text = dict(checkpoint.unet_shapes("sd15")), dict(checkpoint.clip_shapes("sd1_clip_config.json"))
    dog = edloras.random_parts(checkpoint.UNETS["sd15"], unet, [text], ("<chow_dog_1>", "<chow_dog_2>"), size=0.02)
    edloras.put(models / "loras" / "chow_dog.pth", dog)
    npnets.save_recipe(models / "npnet" / "sdxl.pth")


def checkpoint_for(name):
    """The tiny checkpoint that stands in for one that a workflow names."""
    return f"tiny_{'sdxl' if 'xl' in name.lower() else 'sd15'}.ckpt"

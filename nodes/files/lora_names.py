"""Names in LoRA files and in the host's patches of weights."""

# What the host's keys of a UNet's weights begin with.
UNET_PREFIX = "diffusion_model."
# The kohya names of a LoRA's parts, which every loader of the host knows.
PART_NAMES = {"down": "lora_down.weight", "up": "lora_up.weight", "alpha": "alpha"}

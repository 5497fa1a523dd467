"""The host floor: where and when ComfyUI's UNet calls us."""

"""The maths floor: tensors in, tensors out. Nothing here knows ComfyUI."""

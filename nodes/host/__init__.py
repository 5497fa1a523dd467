"""What several rooms know of ComfyUI, which the code calls the host: how techniques join a MODEL, whose rows are whose,
when a call happens, what the UNet reads, families of models, the cache of keys and values in RAM, messages.
"""

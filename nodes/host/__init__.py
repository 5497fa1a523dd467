"""All that knows ComfyUI: how techniques join a MODEL, whose rows are whose, when a call is, what the UNet reads."""

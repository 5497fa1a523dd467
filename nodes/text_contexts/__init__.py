"""Words in a CLIP and prompts that say another thing at each layer: ED-LoRA."""

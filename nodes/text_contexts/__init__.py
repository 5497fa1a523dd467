"""Words in a CLIP, and prompts that say another thing at each layer, at each step, or to keys and to values."""

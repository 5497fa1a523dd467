"""New words in a CLIP, and prompts that differ by layer, by step, or for keys and values: ED-LoRA, learned words, Stage
Prompts, ProSpect, NeTI, Perfusion, AlignIT.
"""

"""Self-attention that also looks at reference pictures: Multi-Reference Self-Attention, DreamTuner, Reference Only,
Reference Guidance, the attention of VisCtrl.
"""

"""Self-attention that also looks at reference pictures: Multi-Reference Self-Attention."""

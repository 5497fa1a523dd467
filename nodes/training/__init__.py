"""Concepts learned from pictures inside the graph: words, LoRAs, ED-LoRAs, the things of one picture."""

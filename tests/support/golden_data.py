"""Reads the recorded cases in tests/golden/."""

import json
from pathlib import Path

from safetensors import safe_open

GOLDEN = Path(__file__).parents[1] / "golden"


def case(name):
    """(tensors, parameters) of one recorded case, by its path below tests/golden/ without the ending."""
    with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        metadata = file.metadata() or {}
    return tensors, json.loads(metadata["params"]) if "params" in metadata else metadata

"""A whole training over HTTP: cancelled, taken up by another server, and in the end what an unbroken one gives."""

import json
import os
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from setup.host_server import Server, failure
from support.small_runs import painted

ROOT = Path(__file__).parents[2]
STEPS = 10

pytestmark = pytest.mark.slow


def graph_of(name):
    """Word and LoRA of one picture on the pocket model, in small."""
    nodes = {
        "model": ("PersonalizationPocketModel", {}),
        "picture": ("PersonalizationSample", {"picture": "pocket_heart"}),
        "pictures": (
            "PersonalizationTrainPictures",
            {"image": ["picture", 0], "word": "<it>", "class_word": "heart", "captions": "a {}", "templates": "object"},
        ),
        "train": (
            "PersonalizationTrain",
            {
                **{socket: ["model", slot] for slot, socket in enumerate(("model", "clip", "vae"))},
                **{"pictures": ["pictures", 0], "method": "ED-LoRA", "file_name": name, "steps": STEPS, "size": 64},
                **{"seed": 1, "save_every": 1, "preview_every": 0, "preview_prompt": "a {}", "prior_weight": 0.0},
            },
        ),
        "show": ("SaveImage", {"images": ["train", 3], "filename_prefix": name}),
    }
    return {key: {"class_type": kind, "inputs": inputs} for key, (kind, inputs) in nodes.items()}


def served(base):
    return Server(
        os.environ["COMFYUI_PATH"], sys.executable, base, cpu=not torch.cuda.is_available(),
        packs={"comfyui-personalization": ROOT},
    )  # fmt: skip


def steps_kept(base):
    try:
        with safe_open(base / "output" / "personalization_training" / "broken.training", "pt") as file:
            return int(file.metadata()["done"])
    except (OSError, KeyError):
        return 0


def learned(base, name):
    with safe_open(base / "models" / "loras" / f"{name}.safetensors", "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)


def cancelled_after_a_step(server, graph):
    """What the server says of a prompt that is interrupted as soon as a state is written."""
    prompt, end = server.queue(graph), time.monotonic() + 300
    while not steps_kept(server.base):
        server.check_alive()
        assert time.monotonic() < end, "no state was written"
        time.sleep(0.02)
    server.interrupt()
    while not (entry := json.loads(server.get(f"/history/{prompt}")).get(prompt)):
        assert time.monotonic() < end, "the prompt goes on"
        time.sleep(0.05)
    return str(failure(entry))


def test_cancelled_and_taken_up_by_another_server(tmp_path):
    with served(tmp_path) as server:
        whole, _ = painted(server, graph_of("whole"))
        assert "interrupted" in cancelled_after_a_step(server, graph_of("broken"))
    before = steps_kept(tmp_path)
    assert 0 < before < STEPS and not (tmp_path / "models" / "loras" / "broken.safetensors").exists()
    with served(tmp_path) as server:
        again, _ = painted(server, graph_of("broken"))
    assert steps_kept(tmp_path) == STEPS
    expected, found = learned(tmp_path, "whole"), learned(tmp_path, "broken")
    assert expected.keys() == found.keys() and all(torch.equal(found[key], t) for key, t in expected.items())
    assert all((one == other).all() for one, other in zip(whole, again, strict=True))

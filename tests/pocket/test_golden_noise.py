"""An NPNet for the pocket model, by the pack's own nodes."""

import folder_paths
import golden_noise
import pytest
import torch
from made_up import random_networks, write
from safetensors.torch import load_file

from pack.nodes.golden_noise.npnet_file import net_from


@pytest.fixture
def said(tmp_path, monkeypatch):
    folder = write(random_networks(), tmp_path)
    monkeypatch.setattr(folder_paths, "output_directory", folder_paths.get_output_directory())
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "npnet", ([], set()))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    few = ["--prompts", "3", "--pairs", "1", "--steps", "2", "--batch", "2"]
    where = ["--folder", str(folder), "--cache", str(tmp_path / "pairs"), "--out", str(tmp_path / "made")]
    return golden_noise.train(golden_noise.parser().parse_args(few + where)), tmp_path


def test_the_nodes_learn_from_what_they_collected(said):
    report, folder = said
    assert "2 steps" in report
    kept = load_file(folder / "made" / "npnet" / "npnet_pocket.safetensors")
    net = net_from(kept, "npnet_pocket")
    assert (net.sizes.side, net.sizes.prompt) == (16, 768)
    assert sum(t.numel() for t in kept.values()) * 2 < 3e6
    assert all(t.isfinite().all() for t in net.weights.values())
    assert len(list((folder / "pairs" / "npnet_pairs").glob("pair_*"))) == 3
    assert torch.tensor([net.weights[name].abs().sum() for name in ("alpha", "beta")]).any()

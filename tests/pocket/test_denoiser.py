"""What the denoiser learns on, and how errors count."""

import os
import subprocess
import sys
from pathlib import Path

import denoiser
import pytest
import torch
from safetensors.torch import load_file

HERE = Path(__file__).parent


def test_errors_where_noise_rules_count_more_but_not_without_end():
    class Wrong(torch.nn.Module):
        def forward(self, noisy, timesteps, rows):
            return torch.zeros_like(noisy)

    bar = denoiser.alphas_bar()
    latents, rows = torch.zeros(1000, 4, 2, 2), torch.zeros(1000, 77, dtype=torch.long)
    torch.manual_seed(0)
    loss, said = denoiser.noise_loss(Wrong(), latents, rows, bar, torch.Generator().manual_seed(0))
    ratio = bar / (1 - bar)
    expected = ((ratio + denoiser.MORE).clamp_max(denoiser.GAMMA) / ratio).clamp_max(denoiser.MOST).mean()
    # noise has unit variance, and nothing of it is predicted
    assert said["mse"] == pytest.approx(1, rel=0.05) and loss.item() == pytest.approx(expected.item(), rel=0.1)


@pytest.mark.parametrize(("lean", "share"), [(1.0, 0.5), (0.5, 0.75)])
def test_timesteps_may_lean_to_much_noise(lean, share):
    seen = []

    class Watching(torch.nn.Module):
        def forward(self, noisy, timesteps, rows):
            seen.append(timesteps)
            return torch.zeros_like(noisy)

    latents, rows = torch.zeros(400, 4, 2, 2), torch.zeros(400, 77, dtype=torch.long)
    denoiser.noise_loss(Watching(), latents, rows, denoiser.alphas_bar(), torch.Generator().manual_seed(0), lean)
    (timesteps,) = seen
    assert timesteps.min() >= 0 and timesteps.max() < 1000
    # t = 1000 u^lean is at least 500 for a share of 1 - 0.5^(1 / lean)
    assert (timesteps >= 500).float().mean() == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("begin", [0.0, 0.3, 1.0])
def test_a_share_of_the_pictures_is_shown_as_sampling_begins(begin):
    latents, rows, bar = (
        torch.full((400, 4, 16, 16), 3.0),
        torch.zeros(400, 77, dtype=torch.long),
        denoiser.alphas_bar(),
    )
    level = ((1 - bar) / bar).sqrt()

    class Knowing(torch.nn.Module):
        """Knows the picture, and takes away all that is not of it."""

        def forward(self, noisy, timesteps, rows):
            signal = bar[timesteps][:, None, None, None]
            self.timesteps, self.there = timesteps, (noisy / signal.sqrt()).mean((1, 2, 3)) / 3
            return (noisy - signal.sqrt() * latents) / (1 - signal).sqrt()

    network = Knowing()
    torch.manual_seed(0)
    loss, said = denoiser.noise_loss(network, latents, rows, bar, torch.Generator().manual_seed(1), begin=begin)
    assert said["mse"] < 1e-6 and loss < 1e-4
    late = network.timesteps >= 1000 - denoiser.BEGIN
    assert late.float().mean() == pytest.approx(begin + (1 - begin) * denoiser.BEGIN / 1000, abs=0.07)
    assert ((network.there[~late] - 1).abs() < 0.25).all()
    # what noise adds to the mean of a picture
    unsure = 4 * level[network.timesteps] / 32 / 3
    straight = 1 - level[network.timesteps] / level[-1]
    begun = (network.there - straight).abs() < unsure
    assert ((network.there - 1).abs() < unsure)[~begun].all()
    if begin == 1:
        assert begun.all() and (network.timesteps >= 990).float().mean() == pytest.approx(0.36, abs=0.03)


@pytest.mark.slow
def test_two_processes_learn_the_same_network(folder):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [HERE / "denoiser.py", "--cache", folder, "--folder", folder, "--steps", "2", "--batch", "2"]
    command += ["--pool", "8", "--new", "1", "--threads", "1", "--device", "cpu"]
    command += ["--autoencoder", folder / "autoencoder.safetensors", "--start-from", folder]
    before = load_file(folder / "unet.safetensors")
    done = subprocess.run(command, env=dict(os.environ, OMP_NUM_THREADS="1"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    state = torch.load(folder / "denoiser.checkpoint", weights_only=True)
    after = load_file(folder / "unet.safetensors")
    assert state["steps"] == 2 and any(not torch.equal(before[name], after[name]) for name in before)
    # each process remembers half of the large matrices' gradients; the checkpoint has all
    memories = state["optimizers"][1]["state"]
    weights = [name for name, t in state["network"].items() if name.startswith("unet.") and t.ndim > 1]
    assert len(memories) > 0.9 * len(weights)
    assert sum(bool(memory["momentum_buffer"].any()) for memory in memories.values()) > 0.9 * len(memories)

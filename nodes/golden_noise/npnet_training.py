"""Training of an NPNet on noise pairs (arXiv 2411.09502, section 3.3), with progress and restarts."""

import math

import comfy.model_management
import comfy.utils
import torch
from safetensors import safe_open

from ...kernels.noise_prompt import TOKENS, NPNetSizes, fresh_weights, golden_noise
from ..files.file_name import file_name_of
from ..files.new_files import in_folder, write_tensors
from ..host.messages import input_error, plain, warn_user
from .noise_pairs import read_pairs
from .npnet_file import NPNET_KINDS, net_from

# Swin-Tiny and the hidden widths of the published networks.
PUBLISHED_SIZES = {"width": 96, "depths": (2, 2, 6, 2), "heads": (3, 6, 12, 24), "vectors": 64, "values": 1024}
# Every tenth pair is kept out of training to judge by.
HELD_OUT = 10
# Steps between two files from which an interrupted training goes on.
SAVE_EVERY = 100


def train(folder, file_name, start, *, steps, batch_size, learning_rate, seed):
    """(NoisePromptNet, path of its file, sentence on the losses): AdamW on the mean squared error to the golden noise.

    start: a NoisePromptNet to go on from, or None. An interrupted training with the same name and settings goes on
    where its last state was written, and ends as it would have without the interrupt.
    """
    path = _target(file_name)
    # nodes run in inference mode, whose tensors cannot be trained
    with torch.inference_mode(False), torch.enable_grad():
        pairs = read_pairs(folder)
        held = pairs[HELD_OUT - 1 :: HELD_OUT] or pairs
        shown = [pair for i, pair in enumerate(pairs) if i % HELD_OUT != HELD_OUT - 1]
        device = comfy.model_management.get_torch_device()
        weights = {
            key: t.clone().to(device).requires_grad_() for key, t in _first_weights(pairs[0], start, seed).items()
        }
        optimizer = torch.optim.AdamW(list(weights.values()), lr=learning_rate)
        state = _State(folder / f"{path.stem}.training", weights, optimizer, f"{batch_size}/{learning_rate}/{seed}")
        before = torch.stack([(noise - golden).square().mean() for noise, golden, _ in held]).mean()
        done = state.read()
        progress = comfy.utils.ProgressBar(steps)
        try:
            while done < steps:
                comfy.model_management.throw_exception_if_processing_interrupted()
                _one_step(weights, optimizer, _batch(shown, batch_size, seed, done), done)
                done += 1
                progress.update_absolute(done, steps)
                if done % SAVE_EVERY == 0:
                    state.write(done)
        finally:
            state.write(done)
        after = torch.stack([_loss(weights, [pair]).detach() for pair in held]).mean().cpu()
        net = net_from({key: t.detach().cpu() for key, t in weights.items()}, path.name)
    write_tensors(path, net.weights)
    report = f"{path.name}, {done} steps, {len(shown)} pairs: loss on {len(held)} held out {before:.5f} -> {after:.5f}"
    if after >= before:
        warn_user(f"{report}; this is no better than plain noise: train longer or collect more pairs")
    return net, str(path), plain(report)


def _target(file_name):
    path = in_folder(NPNET_KINDS[0], file_name_of(file_name, "my_npnet"))
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _first_weights(pair, start, seed):
    noise, _, prompt = pair
    side, width = noise.shape[-1], prompt.shape[-1]
    if noise.shape[1:] != (4, side, side):
        raise input_error(
            f"the pairs have the shape {list(noise.shape[1:])}, an NPNet needs square latents with 4 channels; collect "
            "pairs of equal width and height"
        )
    if prompt.shape[1] < TOKENS:
        raise input_error(
            f"the prompts have {prompt.shape[1]} tokens, an NPNet reads {TOKENS}; collect the pairs again, with "
            "prompts encoded by the checkpoint's CLIP"
        )
    if start is None:
        return fresh_weights(NPNetSizes(side, width, **PUBLISHED_SIZES), seed)
    if start.sizes.prompt != width:
        raise input_error(
            f"{start.name} is for {start.family}, the embeddings of the pairs' prompts are {width} wide; disconnect "
            "npnet to train from scratch"
        )
    if start.sizes.side == side:
        return start.weights
    # the SVD branch fits one size only, the rest any
    sizes = NPNetSizes(**{**vars(start.sizes), "side": side})
    fresh = fresh_weights(sizes, seed)
    return {key: fresh[key] if key.startswith("unet_svd.") else start.weights[key] for key in fresh}


def _batch(pairs, size, seed, step):
    generator = torch.Generator().manual_seed(hash((seed, step)) & 0x7FFFFFFF)
    return [pairs[i] for i in torch.randint(len(pairs), (size,), generator=generator).tolist()]


def _loss(weights, batch):
    noise, golden = (torch.cat([pair[i] for pair in batch]) for i in (0, 1))
    prompt = torch.cat([pair[2][:1, :TOKENS] for pair in batch])
    made = golden_noise(noise, prompt, weights)
    return (made - golden.to(made)).square().mean()


def _one_step(weights, optimizer, batch, step):
    optimizer.zero_grad(set_to_none=True)
    loss = _loss(weights, batch)
    if not math.isfinite(loss.item()):
        raise input_error(f"the loss at step {step} is not a number; lower learning_rate and choose another file_name")
    loss.backward()
    optimizer.step()


class _State:
    """Weights and moments of AdamW in one file; it counts only for the settings it was written with."""

    MOMENTS = ("exp_avg", "exp_avg_sq", "step")

    def __init__(self, path, weights, optimizer, settings):
        self.path = path
        self.weights = weights
        self.optimizer = optimizer
        self.settings = settings

    def write(self, done):
        tensors = {f"weights/{key}": t for key, t in self.weights.items()}
        for key, weight in self.weights.items():
            moments = self.optimizer.state.get(weight, {})
            tensors |= {f"{name}/{key}": moments[name] for name in self.MOMENTS if name in moments}
        write_tensors(self.path, tensors, done=str(done), settings=self.settings)

    def read(self):
        """Takes the state over; returns how many steps were done, 0 if there is none of these settings."""
        if not self.path.is_file():
            return 0
        with safe_open(self.path, "pt") as file:
            metadata, names = file.metadata(), set(file.keys())
            if metadata["settings"] != self.settings:
                return 0
            for key, weight in self.weights.items():
                stored = file.get_tensor(f"weights/{key}")
                if stored.shape != weight.shape:
                    return 0
                weight.data.copy_(stored)
                if f"step/{key}" in names:
                    moments = {name: file.get_tensor(f"{name}/{key}") for name in self.MOMENTS}
                    self.optimizer.state[weight] = {n: t if n == "step" else t.to(weight) for n, t in moments.items()}
        return int(metadata["done"])

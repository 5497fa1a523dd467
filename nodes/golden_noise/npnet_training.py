"""Training of an NPNet on noise pairs (arXiv 2411.09502, section 3.3), with progress and restarts."""

import contextlib
import math
import os

import comfy.model_management
import comfy.utils
import torch

from ...kernels.noise_prompt import TOKENS, NPNetSizes, fresh_weights, golden_noise
from ..files.file_name import file_name_of
from ..files.new_files import clear_leftovers, in_folder, try_writing, write_tensors
from ..files.safe_files import sha256_of
from ..files.training_state import TrainingState, replaces, started_anew
from ..host.content_keys import digest
from ..host.loss_curve import LossCurve
from ..host.messages import input_error, plain, warn_user
from .noise_pairs import pairs_digest, read_pairs
from .npnet_file import NPNET_KINDS, net_from

# Swin-Tiny and the hidden widths of the published networks.
PUBLISHED_SIZES = {"width": 96, "depths": (2, 2, 6, 2), "heads": (3, 6, 12, 24), "vectors": 64, "values": 1024}
# Every tenth pair is kept out of training to judge by.
HELD_OUT = 10
# Steps between two files from which an interrupted training goes on.
SAVE_EVERY = 100
# A state has the weights and two moments of each; as many bytes as a network more, since both may lie on one disk.
STATE_SIZE = 4
# The name under which a network says in its metadata which training wrote it.
MARK = "training"


def train(folder, file_name, start, *, steps, batch_size, learning_rate, seed):
    """(NoisePromptNet, path of its file, sentence on the losses): AdamW on the mean squared error to the golden noise.

    start: a NoisePromptNet to go on from, or None. An interrupted training with the same name, pairs and settings goes
    on where its last state was written, and ends as it would have without the interrupt. Raises ValueError for inputs
    that cannot be trained with, a network of that name that is somebody's, and a disk that does not take the files.
    """
    path = _path_of_network(file_name)
    # nodes run in inference mode, whose tensors cannot be trained
    with torch.inference_mode(False), torch.enable_grad():
        pairs = read_pairs(folder)
        judged = (held := pairs[HELD_OUT - 1 :: HELD_OUT]) or pairs
        shown = [pair for i, pair in enumerate(pairs) if i % HELD_OUT != HELD_OUT - 1]
        first = _first_weights(pairs, start, seed)
        identity = {
            "pairs": pairs_digest(pairs).hex(),
            "start network": digest(*first.values()).hex(),
            "settings": f"{batch_size}/{learning_rate}/{seed}",
        }
        device = comfy.model_management.get_torch_device()
        weights = {key: t.clone().to(device).requires_grad_() for key, t in first.items()}
        optimizer = torch.optim.AdamW(list(weights.values()), lr=learning_rate)
        state = TrainingState(folder / f"{path.stem}.training", weights, optimizer, identity)
        before = torch.stack([(noise - golden).square().mean() for noise, golden, _ in judged]).mean()
        done = state.read()
        _replaces(path, state)
        if done < steps:
            _check_disk(path, state)
        done = _trained(state, done, steps, lambda step: _batch(shown, batch_size, seed, step), LossCurve(before))
        after = torch.stack([_loss(weights, [pair]).detach() for pair in judged]).mean().cpu()
        net = net_from({key: t.detach().cpu() for key, t in weights.items()}, path.name)
        _write_network(path, net, state, done)
    on = f"{len(held)} held out" if held else f"the same (too few to hold any out: collect {HELD_OUT} or more)"
    name = f"{path.name}{started_anew(state)}"
    report = f"{name}, {done} steps, {len(shown)} pairs{state.where()}: loss on {on} {before:.5f} -> {after:.5f}"
    if after >= before:
        warn_user(f"{report}; this is no better than plain noise: train longer or collect more pairs")
    return net, str(path), plain(report)


def is_trained(file_name):
    """Whether a network of that name is there; False for None, a name from a wire, and for what is no file's name."""
    with contextlib.suppress(ValueError):
        return file_name is not None and os.path.lexists(_path_of_network(file_name))
    return False


def _path_of_network(file_name):
    return in_folder(NPNET_KINDS[0], file_name_of(file_name, "my_npnet"))


def _trained(state, done, steps, batch, curve):
    """Trains up to a number of steps and returns how many were done; the state is kept where it ends before."""
    progress, at = comfy.utils.ProgressBar(steps), done
    try:
        while done < steps:
            comfy.model_management.throw_exception_if_processing_interrupted()
            curve.add(done, _one_step(state.weights, state.optimizer, batch(done), done))
            done += 1
            progress.update_absolute(done, steps)
            if done % SAVE_EVERY == 0:
                state.keep(done)
    except BaseException:
        # one without a step has nothing to keep, and the file may be another training's
        if done > at:
            state.keep(done)
        raise
    curve.show()
    return done


def _mark(path, state):
    """What a network of this training says in its metadata."""
    return "/".join((path.stem, *state.identity.values()))


def _replaces(path, state):
    """Whether the network of an earlier run of this training is there; ValueError for any other file."""

    def is_ours(metadata):
        return metadata.get(MARK) == _mark(path, state) or sha256_of(path) == state.written

    return replaces(path, is_ours)


def _check_disk(path, state):
    """ValueError before hours of training if the disk would not take what comes of them."""
    # who cancels on a full disk has cancelled
    comfy.model_management.throw_exception_if_processing_interrupted()
    size = state.bytes_of_network
    for file, needed in ((path, size), (state.path, STATE_SIZE * size)):
        try_writing(file, needed)
        clear_leftovers(file.parent)


def _write_network(path, net, state, done):
    try:
        write_tensors(path, net.weights, _replaces(path, state), **{MARK: _mark(path, state)})
        state.written = sha256_of(path)
    finally:
        state.keep(done)


def _first_weights(pairs, start, seed):
    noise = pairs[0][0]
    prompt = min((prompt for _, _, prompt in pairs), key=lambda prompt: prompt.shape[1])
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
    """The loss before the step; ValueError if it is no number."""
    optimizer.zero_grad(set_to_none=True)
    loss = _loss(weights, batch)
    if not math.isfinite(found := loss.item()):
        raise input_error(
            f"the loss at step {step} is NaN or infinite; lower learning_rate and choose another file_name"
        )
    loss.backward()
    optimizer.step()
    return found

"""Golden Noise (NPNet, arXiv 2411.09502): what the network makes of a noise of any size."""

from dataclasses import dataclass
from functools import partial

import comfy.model_management
import torch

from ...kernels.noise_prompt import TOKENS, canvas_size, centre, for_batch, golden_noise, tiled, with_long_prompt
from ..host.choices import check_listed
from ..host.families import OTHER_CHANNELS, PROMPT_WIDTHS
from ..host.messages import input_error, log_info, warn_user
from ..host.paired_rows import taken_apart
from ..host.seeded import seeded_noise
from .npnet_file import NoisePromptNet

SIZE_MODES = ("tile", "resize", "off")
LONG_PROMPTS = ("truncate", "average", "recurse")
DEVICES = ("cpu", "gpu")
LATENT_CHANNELS = 4


@dataclass(frozen=True, eq=False)
class NoiseImprover:
    """What one node does to a noise: the network, the prompt and the choices of the user."""

    net: NoisePromptNet
    prompt: torch.Tensor  # (p, 77k, D)
    strength: float
    size_mode: str
    long_prompt: str
    device: str

    def __call__(self, noise, seed, draw):
        """The golden noise: shape and dtype of `noise` (b, 4, h, w), on the CPU.

        seed: of what else must be drawn; draw(side): the user's noise at another size (b, 4, side, side), or None.
        No noise (all zeros) stays none, and strength 0 gives the noise itself.
        """
        check_latent(noise)
        if self.strength == 0 or not torch.any(noise):
            return noise
        side = self.net.sizes.side
        plain = noise.detach().float().cpu()
        size = tuple(plain.shape[-2:])
        native = size == (side, side)
        if not native and self.size_mode == "off":
            warn_user(
                f'the latent is {size_text(size)}, not {size_text((side, side))}, and size_mode is "off": the noise '
                'stays plain; choose "tile" to improve it'
            )
            return noise
        network = partial(self._network, _weights_on(self.net, self.device))
        if native:
            golden = self._mixed(plain, network(plain))
        else:
            log_info(f'latent {size_text(size)} is not {size_text((side, side))}: size_mode "{self.size_mode}"')
            golden = self._resized(plain, draw(side), network) if self.size_mode == "resize" else None
            golden = self._tiled(plain, seed, network) if golden is None else golden
        if not torch.isfinite(golden).all():
            warn_user("NPNet produced NaN or infinite values, so the noise stays plain; check the conditioning")
            return noise
        return golden.to(noise.dtype)

    def _tiled(self, plain, seed, network):
        side, size = self.net.sizes.side, plain.shape[-2:]
        canvas_of = canvas_size(size, side)
        # one canvas for all images, so that each gets in a batch what it gets alone
        canvas = (
            extra_noise(seed, plain.new_empty(1, LATENT_CHANNELS, *canvas_of)).expand(len(plain), -1, -1, -1).clone()
        )
        middle = (..., *centre(canvas_of, size))
        canvas[middle] = plain
        return self._mixed(plain, tiled(canvas, side, network)[middle])

    def _resized(self, plain, native, network):
        if native is None:
            return None
        native = native.float().cpu()
        mixed = self._mixed(native, network(native))
        return torch.nn.functional.interpolate(mixed, size=plain.shape[-2:], mode="nearest-exact")

    def _mixed(self, plain, golden):
        return golden if self.strength == 1 else plain + self.strength * (golden - plain)

    def _network(self, weights, noise):
        comfy.model_management.throw_exception_if_processing_interrupted()
        prompt = for_batch(self.prompt, len(noise))
        with torch.no_grad():
            return with_long_prompt(
                noise, prompt, lambda x, part: golden_noise(x, part, weights).cpu(), self.long_prompt
            )


def noise_improver(net, conditioning, strength, size_mode, long_prompt, device):
    """A NoiseImprover; ValueError for a prompt or a choice it cannot work with."""
    check_listed("size_mode", size_mode, SIZE_MODES)
    check_listed("long_prompt", long_prompt, LONG_PROMPTS)
    check_listed("device", device, DEVICES)
    return NoiseImprover(net, _prompt_of(conditioning, net), strength, size_mode, long_prompt, device)


def check_latent(latent):
    """ValueError, naming the family, for a latent or noise that is not (b, 4, h, w)."""
    if getattr(latent, "is_nested", False) or latent.ndim != 4:
        raise input_error(
            "NPNet needs picture latents with 4 channels; this is a video or audio latent: use plain noise for it"
        )
    if latent.shape[1] != LATENT_CHANNELS:
        family = OTHER_CHANNELS.get(latent.shape[1], "another family")
        raise input_error(
            f"NPNet needs latents with 4 channels; this one has {latent.shape[1]} ({family}): use plain noise for it"
        )


def extra_noise(seed, like):
    """Unit-variance noise of the shape of `like` around a latent smaller than the network, fixed by the seed."""
    return seeded_noise(f"{seed}/npnet canvas", like.shape)


def _prompt_of(conditioning, net):
    if not conditioning:
        raise input_error("conditioning is empty; connect the positive prompt")
    if len(conditioning) > 1:
        warn_user(f"conditioning holds {len(conditioning)} prompts (combined or timed); NPNet reads only the first")
    prompt, values = taken_apart(conditioning[0][0])
    if values is not None:
        warn_user("conditioning has negative prompt weights, which NPNet does not know: it reads them as positive")
    if prompt is None or prompt.ndim != 3 or not len(prompt):
        raise input_error("conditioning contains no text; connect the positive prompt straight from CLIP Text Encode")
    width, tokens = prompt.shape[-1], prompt.shape[1]
    if width != net.sizes.prompt:
        hint = "SD1.5 has no NPNet" if width == 768 else f"that is {PROMPT_WIDTHS.get(width, 'another family')}"
        raise input_error(
            f"this NPNet is for {net.family}, the prompt's embeddings are {width} wide: {hint}; use Re-denoise, or a "
            "checkpoint that this NPNet was made for"
        )
    if tokens == 0 or tokens % TOKENS:
        raise input_error(
            f"the prompt has {tokens} tokens, NPNet needs a multiple of {TOKENS}; encode it with the checkpoint's CLIP"
        )
    return prompt.detach().float().cpu()


def _weights_on(net, device):
    target = comfy.model_management.get_torch_device() if device == "gpu" else torch.device("cpu")
    if target.type == "cpu":
        return net.weights
    # it works for a fraction of a second before sampling begins: nothing of it stays there
    size = sum(t.numel() * t.element_size() for t in net.weights.values())
    comfy.model_management.free_memory(2 * size, target)
    return {key: t.to(target) for key, t in net.weights.items()}


def size_text(size):
    """A size (h, w) as people write it."""
    return f"{size[1]}x{size[0]}"

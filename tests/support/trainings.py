"""Whole trainings on the host's tiny models, in folders of their own."""

import comfy.model_management as mm
import torch
from support.clips import encoded
from support.models import StubVAE, sample

from pack.nodes.host.content_keys import digest
from pack.nodes.training.pictures_wire import Subject, TrainingPictures, TrainingScene
from pack.nodes.training.train_request import TrainingRequest
from pack.nodes.training.train_run import train_concept

STEPS, SIDE = 4, 64
QUICK = {"placements": 2, "batch_size": 1, "rank": 2, "lr_words": 1e-2}


class TinyVAE(StubVAE):
    """Hands out given latents, and grey pictures."""

    def decode(self, samples):
        side = 8 * samples.shape[-1]
        return samples.new_full((len(samples), side, side, 3), 0.5)


def pictures_for(host, method):
    """What a method learns from."""
    mask = torch.zeros(1, 80, 96)
    mask[:, 16:60, 20:70] = 1
    if method == "scene":
        masks = torch.cat([mask, mask.flip(-1)])
        return TrainingScene(host.images[:1], masks, ("<a>", "<b>"), ("33", "34"))
    word = "99" if method == "LoRA" else "<it>"
    subject = Subject(host.images, word, "33", ("5 6 {}",), masks=mask)
    other = Subject(host.images[:1], "<that>", "34", ("7 {}",), masks=mask)
    return TrainingPictures((subject, other) if method == "parts" else (subject,))


def trained(host, method, *, steps=STEPS, class_pictures=None, pictures=None, size=SIDE, **asked):
    """The TrainedConcept of a short training; `asked`: another model or clip, further fields of its TrainingRequest."""
    model, clip = (asked.pop(name, getattr(host, name)) for name in ("model", "clip"))
    options = {
        **QUICK,
        **({"lr_unet": 1e-2} if method not in ("word", "crossed word") else {}),
        **asked.pop("options", {}),
    }
    request = TrainingRequest(
        method, steps=steps, size=size, preview_prompt="5 {}", options=options,
        **{"prior_weight": 0.0, "file_name": "it", "preview_every": 0, **asked},
    )  # fmt: skip
    vae, shown = TinyVAE(host.model, host.latents), pictures or pictures_for(host, method)
    return train_concept(model, clip, vae, shown, request, class_pictures)


def weights_of(host):
    """(digest, kinds) of the weights of MODEL and CLIP; asserts that nothing is hooked onto them."""
    networks = (host.model.model, host.clip.cond_stage_model)
    # the host leaves the patches of the last run in them
    mm.load_models_gpu([host.model, host.clip.patcher], force_full_load=True)
    for network in networks:
        for module in network.modules():
            assert not module._forward_hooks and not module._forward_pre_hooks
            assert "forward" not in module.__dict__
    kinds = [(type(t), t.is_inference()) for network in networks for t in network.parameters()]
    return digest(*[t for network in networks for t in network.state_dict().values() if t.numel()]), kinds


def drawn(model, clip, words):
    """Latents of a prompt with these words."""
    return sample(model, encoded(clip, f"5 {words}"), encoded(clip, ""), steps=2)

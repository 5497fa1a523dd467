"""The gradients of a training: with checkpoints as without, and those of SDXL's words beside differences."""

import pytest
import torch
from support.clips import tiny_clip
from support.compare import relative
from support.models import tiny_model
from support.training import trainer_of
from support.word_files import concept_clip

from pack.nodes.training.learned import Learned, leaf
from pack.nodes.training.lora_layers import TARGETS, fresh_lora, text_layers, unet_layers
from pack.nodes.training.train_losses import LossSettings
from pack.nodes.training.training_batch import TrainingBatch

pytestmark = pytest.mark.slow

WIDTHS = {"sd15": {"l": 32}, "sdxl": {"l": 8, "g": 40}}
CROSS_ATTENTIONS = {"sd15": 16, "sdxl": 28}


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def networks(kind):
    """(MODEL, CLIP, texts with the words and without) that fit each other."""
    if kind == "sd15":
        return tiny_model(), concept_clip(), "5 <v> <w> 6", "7 8"
    return tiny_model("sdxl"), tiny_clip("sdxl", widths=WIDTHS["sdxl"]), "a <v> <w> in sand", "a cat"


def learned_of(kind, model, clip, layers=(), lora=False, pools=False):
    count = max(layers) + 1 if layers else 1
    words = {
        word: {name: leaf(random(count, width, seed=seed)) for name, width in WIDTHS[kind].items()}
        for seed, word in ((5, "<v>"), (6, "<w>"))
    }
    factors = {}
    if lora:
        found = {**unet_layers(model.model, model.model.diffusion_model, TARGETS["transformer"]), **text_layers(clip)}
        factors = fresh_lora(found, 2, 1)
        with torch.no_grad():
            # at its start a LoRA does nothing
            for own in factors.values():
                for _, up in own.values():
                    up += 0.05 * random(*up.shape, seed=up.shape[0])
    return Learned(words, layers, factors, pools)


def batch_of(text, plain, maps="", of_class=True):
    regions = torch.zeros(2, 1 if maps == "levels" else 2, 128, 128)
    regions[:, :, 16:90, 30:110] = 1
    more = {"regions": regions, "shown": (("<v>", "<w>"),) * 2} if maps else {}
    if of_class:
        more |= {"class_latents": random(1, 4, 16, 16, seed=3), "class_noise": random(1, 4, 16, 16, seed=4)}
        more |= {"class_timesteps": torch.tensor([300]), "class_prompts": (plain,)}
    latents, noise = random(2, 4, 16, 16, seed=1), random(2, 4, 16, 16, seed=2)
    return TrainingBatch(latents, noise, torch.tensor([650, 120]), (text, text), **more)


KINDS = {
    "words that differ by layer, levels": ("sd15", "levels", True),
    "words, quarter": ("sd15", "quarter", False),
    "SDXL's words that differ by layer": ("sdxl", "", True),
}


@pytest.mark.parametrize("what", KINDS)
def test_checkpoints_change_nothing(what):
    kind, maps, layered = KINDS[what]
    found = []
    for checkpoint in (False, True):
        model, clip, text, plain = networks(kind)
        layers = tuple(range(CROSS_ATTENTIONS[kind])) if layered else ()
        learned = learned_of(kind, model, clip, layers, lora=True)
        losses = LossSettings("picture", 0.7, maps, 0.3 if maps else 0.0)
        with trainer_of(learned, losses, model=model, clip=clip, checkpoint=checkpoint) as trainer:
            parts = trainer.step(batch_of(text, plain, maps))
        # SDXL's text encoders are read before their last layer
        found.append((parts["loss"], {name: t.grad for name, t in learned.tensors().items() if t.grad is not None}))
    (loss, grads), (again, others) = found
    assert abs(float(again / loss) - 1) < 1e-6 and grads.keys() == others.keys()
    whole = torch.cat([grad.flatten() for grad in grads.values()]).norm()
    for name, grad in grads.items():
        assert float((others[name] - grad).norm()) < 1e-6 * float(max(grad.norm(), 1e-3 * whole)), name
    # where each layer reads a row of its own, all of them learn
    assert all(bool(row.any()) for name in learned.word_tensors() for row in grads[name])


@pytest.mark.parametrize(("pools", "layered"), [(False, True), (True, False)])
def test_words_of_sdxl_beside_differences(pools, layered):
    model, clip, text, plain = networks("sdxl")
    layers = tuple(number % 3 for number in range(CROSS_ATTENTIONS["sdxl"])) if layered else ()
    learned = learned_of("sdxl", model, clip, layers, pools=pools)
    batch, step = batch_of(text, plain, of_class=False), 0.0015
    with trainer_of(learned, model=model, clip=clip) as trainer:
        trainer.step(batch)
        gradients = {name: rows.grad.clone() for name, rows in learned.word_tensors().items()}

        def loss_at(offsets, factor):
            _move(learned, offsets, factor)
            loss = float(trainer.step(batch)["loss"])
            _move(learned, offsets, -factor)
            return loss

        for encoder in WIDTHS["sdxl"]:
            own = {name: grad for name, grad in gradients.items() if f".{encoder}." in name}
            length = torch.cat([grad.flatten() for grad in own.values()]).norm()
            offsets = {name: grad / length + 0.1 * random(*grad.shape, seed=7) for name, grad in own.items()}
            slopes = [loss_at(offsets, h) - loss_at(offsets, -h) for h in (step, 2 * step)]
            # the loss bends much: of the fourth order
            slope = (8 * slopes[0] - slopes[1]) / (12 * step)
            expected = sum(float((grad * offsets[name]).sum()) for name, grad in own.items())
            assert expected > 0.5 * length and slope == pytest.approx(expected, rel=0.03), encoder


def _move(learned, offsets, factor):
    with torch.no_grad():
        for name, offset in offsets.items():
            learned.word_tensors()[name] += factor * offset


def test_the_pooled_text_of_sdxl_is_part_of_the_gradient():
    found = []
    for pools in (False, True):
        model, clip, text, plain = networks("sdxl")
        learned = learned_of("sdxl", model, clip, pools=pools)
        with trainer_of(learned, model=model, clip=clip) as trainer:
            trainer.step(batch_of(text, plain, of_class=False))
        found.append({name: rows.grad for name, rows in learned.word_tensors().items()})
    # read at the word or at the end, it is that of the second encoder
    end, word = found
    assert relative(word["words.g.<w>"], end["words.g.<w>"]) > 1e-2

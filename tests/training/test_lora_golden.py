"""LoRAs learned as the published codes learn them, step by step: DreamBooth with class pictures, SDXL, ED-LoRA."""

import pytest
import torch
from support.golden_data import case
from support.models import tiny_model
from support.training import moved, moved_lora, near, near_lora, near_loss, started_lora, started_words, trainer_of

from pack.nodes.training.learned import Learned
from pack.nodes.training.train_losses import LossSettings
from pack.nodes.training.train_optimizer import OptimizerSettings
from pack.nodes.training.trained_texts import TrainedText
from pack.nodes.training.training_batch import TrainingBatch


@pytest.mark.parametrize("checkpoint", [False, True])
def test_class_pictures_and_the_limit_of_the_gradient(checkpoint):
    golden, params = case("training/dreambooth_lora_prior")
    learned = Learned(lora=started_lora(golden))
    losses = LossSettings(prior_weight=params["prior_weight"])
    optimizer = OptimizerSettings(lr_unet=params["lr"], clip_norm=params["max_grad_norm"], steps=params["steps"])
    with trainer_of(learned, losses, optimizer, checkpoint=checkpoint) as trainer:
        for step in range(params["steps"]):
            own, of_class = ([t[:1], t[1:]] for t in (golden["latents"],) * 2)
            noise, timesteps = golden[f"step{step}/noise"], golden[f"step{step}/timesteps"]
            batch = TrainingBatch(
                own[0], noise[:1], timesteps[:1], (params["prompt"],),
                class_latents=of_class[1], class_noise=noise[1:], class_timesteps=timesteps[1:],
                class_prompts=(params["class_prompt"],),
            )  # fmt: skip
            parts = trainer.step(batch)
            near_loss(parts, golden, step, {"loss": "loss", "loss_noise": "loss_instance", "loss_prior": "loss_prior"})
            near_lora(trainer, golden, step, 1e-4)
            norm = trainer.update()
            near(norm[None], golden[f"step{step}/grad_norm"][None], 1e-4)
    moved_lora(trainer, golden, 2e-3)


def ids_of(**values):
    """The golden SDXL UNet's y from pooled text and sizes: the six ids are 8 dims each."""
    names = ("height", "width", "crop_h", "crop_w", "target_height", "target_width")
    ids = torch.tensor([float(values[name]) for name in names])
    frequencies = torch.exp(-torch.log(torch.tensor(10000.0)) * torch.arange(4) / 4)
    angles = ids[:, None] * frequencies
    return torch.cat([values["pooled_output"], torch.cat([angles.cos(), angles.sin()], 1).flatten()[None]], 1)


def test_sdxl():
    golden, params = case("training/sdxl_lora")
    model = tiny_model("sdxl")
    model.model.encode_adm = ids_of
    optimizer = OptimizerSettings(lr_unet=params["lr"], clip_norm=0.0, steps=params["steps"])
    with trainer_of(Learned(lora=started_lora(golden)), optimizer=optimizer, model=model) as trainer:
        trainer.texts.fixed["given"] = TrainedText(golden["contexts"], golden["pooled"], {})
        for step in range(params["steps"]):
            noise, timesteps = golden[f"step{step}/noise"], golden[f"step{step}/timesteps"]
            sizes = torch.tensor([params["time_ids"]])
            parts = trainer.step(TrainingBatch(golden["latents"], noise, timesteps, ("given",), sizes=sizes))
            near_loss(parts, golden, step, {"loss": "loss"})
            near_lora(trainer, golden, step, 1e-3)
            trainer.update()
    moved_lora(trainer, golden, 2e-2)


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("name", ["edlora_regions", "edlora_image_mask"])
def test_edlora(name, checkpoint):
    golden, params = case(f"training/{name}")
    words = params["words"]
    learned = Learned(started_words(golden, words), tuple(range(params["layers"])), started_lora(golden))
    losses = LossSettings(
        maps="levels", attention_weight=params["attention_weight"], full_identity=params["full_identity"]
    )
    optimizer = OptimizerSettings(
        params["lr_words"], params["lr_unet"], params["lr_text_encoder"], params["total_steps"], params["schedule"],
        clip_norm=0.0, norm_limit=params["norm_threshold"],
    )  # fmt: skip
    with trainer_of(learned, losses, optimizer, checkpoint=checkpoint) as trainer:
        for step in range(params["steps"]):
            noise = golden[f"step{step}/noise"] + params["noise_offset"] * golden[f"step{step}/noise_offset"]
            masks = golden["masks"] if params["mask_loss"] else golden["image_masks"]
            prompts = tuple(params["prompts"])
            batch = TrainingBatch(
                golden["latents"], noise, golden[f"step{step}/timesteps"], prompts, masks, golden["masks"],
                (tuple(words),) * len(prompts),
            )  # fmt: skip
            parts = trainer.step(batch)
            names = {"loss": "loss", "loss_noise": "loss_noise", "loss_attention": "loss_attention"}
            near_loss(parts, golden, step, names)
            if step == 0:
                for word in words:
                    near(trainer.tensors()[f"words.l.{word}"].grad, golden[f"step0/grad/{word}"], 1e-4)
            near_lora(trainer, golden, step, 1e-4)
            trainer.update()
    assert trainer.optimizer.stopped == params["stopped"]
    for word in words:
        moved(trainer, golden, f"words.l.{word}", word, 2e-3)
    moved_lora(trainer, golden, 2e-3)

"""Several things at once as the published codes learn them: Break-A-Scene, MagicTailor, CoRe's context."""

import pytest
from support.golden_data import case
from support.training import moved, moved_lora, near, near_lora, near_loss, started_lora, started_words, trainer_of

from pack.kernels.masks import nearest_resize
from pack.nodes.training.learned import Learned
from pack.nodes.training.train_losses import LossSettings
from pack.nodes.training.train_optimizer import OptimizerSettings
from pack.nodes.training.training_batch import TrainingBatch


@pytest.mark.parametrize("name", ["break_a_scene_words", "break_a_scene_lora"])
@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_scene(name, checkpoint):
    golden, params = case(f"training/{name}")
    words = params["words"]
    learned = Learned(started_words(golden, words), lora=started_lora(golden))
    losses = LossSettings("picture", params["prior_weight"], "quarter", params["attention_weight"])
    optimizer = OptimizerSettings(
        params["lr_words"], params["lr_lora"] or 0.0, steps=params["steps"], clip_norm=params["max_grad_norm"]
    )
    with trainer_of(learned, losses, optimizer, checkpoint=checkpoint) as trainer:
        for step, subset in enumerate(params["subsets"]):
            masks = golden["masks"][subset].float()
            timesteps = golden[f"step{step}/timesteps"]
            union = nearest_resize(masks.amax(0), golden["latents"].shape[-2:])[None, None]
            batch = TrainingBatch(
                golden["latents"], golden[f"step{step}/noise"], timesteps[1:], (params["prompts"][step],),
                union, masks[None], (tuple(words[one] for one in subset),),
                class_latents=golden["latents_class"], class_noise=golden[f"step{step}/noise_class"],
                class_timesteps=timesteps[:1], class_prompts=(params["class_prompt"],),
            )  # fmt: skip
            parts = trainer.step(batch)
            names = {"loss": "loss", "loss_prior": "loss_prior", "loss_attention": "loss_attention"}
            near_loss(parts, golden, step, names)
            for word in words:
                expected = golden[f"step{step}/grad/{word}"]
                found = trainer.tensors()[f"words.l.{word}"].grad
                assert (found is None) == (not expected.any())
                if found is not None:
                    near(found, expected, 1e-4)
            near_lora(trainer, golden, step, 1e-4)
            trainer.update()
    for word in words:
        moved(trainer, golden, f"words.l.{word}", word, 2e-3)
    if learned.lora:
        moved_lora(trainer, golden, 2e-3)


def test_things_with_parts():
    golden, params = case("training/magic_tailor")
    words = params["words"]
    learned = Learned(started_words(golden, words), lora=started_lora(golden))
    losses = LossSettings(
        "balance", maps="quarter", attention_weight=params["attention_weight"], warm_up=params["warm_up"],
        preserve=params["lambda_preserve"],
    )  # fmt: skip
    optimizer = OptimizerSettings(
        params["lr"], params["lr"], steps=params["total_steps"], clip_norm=params["max_grad_norm"], clip_words=False
    )
    with trainer_of(learned, losses, optimizer) as trainer:
        for step in range(params["steps"]):
            latents = golden[f"step{step}/latents"]
            masks = golden["masks"].float()[:, None]
            batch = TrainingBatch(
                latents, golden[f"step{step}/noise"], golden[f"step{step}/timesteps"], tuple(params["prompts"]),
                nearest_resize(masks, latents.shape[-2:]), masks, tuple((word,) for word in words), (0, 1),
            )  # fmt: skip
            parts = trainer.step(batch)
            # the case has it without its weight
            parts["loss_attention"] /= params["attention_weight"]
            names = {"loss": "loss", "loss_attention": "loss_attention"}
            near_loss(parts, golden, step, names)
            if step >= params["warm_up"]:
                near(parts["loss_of_concept"], golden[f"step{step}/loss_of_concept"], 1e-5)
            for word in words:
                near(trainer.tensors()[f"words.l.{word}"].grad, golden[f"step{step}/grad/{word}"], 1e-4)
            near_lora(trainer, golden, step, 1e-4)
            norm = trainer.update()
            near(norm[None], golden[f"step{step}/grad_norm"][None], 1e-4)
    for word in words:
        moved(trainer, golden, f"words.l.{word}", word, 5e-3)
    moved_lora(trainer, golden, 2e-3)
    stored = [name for name in trainer.average if f"average/{name}" in golden]
    assert stored
    for name in stored:
        near(trainer.average[name], golden[f"average/{name}"], 1e-3)


def test_what_a_word_does_to_the_rest_of_a_prompt():
    golden, params = case("training/core")
    learned = Learned(started_words(golden, params["words"]))
    losses = LossSettings(context=params["lambda_embedding"])
    with trainer_of(learned, losses) as trainer:
        reference = (params["regularisation_prompt"], params["reference_prompt"], "<w>")
        batch = TrainingBatch(
            golden["latents"], golden["step0/noise"], golden["step0/timesteps"], tuple(params["prompts"]),
            reference=reference,
        )  # fmt: skip
        parts = trainer.step(batch)
    parts["loss_context"] /= params["lambda_embedding"]
    near_loss(parts, golden, 0, {"loss_noise": "loss_noise", "loss_context": "loss_embedding"})

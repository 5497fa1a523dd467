"""Words learned as the published codes learn them, step by step: textual inversion, Cross Initialization."""

import comfy.model_base
import pytest
import torch
from support.golden_data import case
from support.models import tiny_model
from support.training import moved, near, near_loss, started_words, trainer_of

from pack.nodes.training.learned import Learned
from pack.nodes.training.train_losses import LossSettings
from pack.nodes.training.train_optimizer import OptimizerSettings
from pack.nodes.training.training_batch import TrainingBatch


def batch_of(golden, params, step):
    prompts = tuple(params["prompts"])
    return TrainingBatch(golden["latents"], golden[f"step{step}/noise"], golden[f"step{step}/timesteps"], prompts)


@pytest.mark.parametrize("name", ["inversion_two_vectors", "inversion_v_prediction", "cross_initialization"])
@pytest.mark.parametrize("checkpoint", [False, True])
def test_words(name, checkpoint):
    golden, params = case(f"training/{name}")
    model = tiny_model()
    if params["prediction"] == "v_prediction":
        model = tiny_model(model_type=comfy.model_base.ModelType.V_PREDICTION)
    learned = Learned(started_words(golden, params["words"]))
    losses = LossSettings(pull=params["pull"] or 0.0)
    optimizer = OptimizerSettings(lr_words=params["lr"], clip_norm=0.0, steps=params["steps"])
    (word,) = params["words"]
    with trainer_of(learned, losses, optimizer, model=model, checkpoint=checkpoint) as trainer:
        for step in range(params["steps"]):
            parts = trainer.step(batch_of(golden, params, step))
            names = {"loss": "loss", "loss_noise": "loss_noise"}
            near_loss(parts, golden, step, names)
            near(trainer.tensors()[f"words.l.{word}"].grad, golden[f"step{step}/grad/{word}"], 1e-4)
            trainer.update()
    moved(trainer, golden, f"words.l.{word}", word, 2e-3)
    assert not torch.is_grad_enabled() or torch.is_inference_mode_enabled()

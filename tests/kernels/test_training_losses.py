"""Losses of a training step and what MagicTailor does beside them: formulas and recorded values of published code."""

import pytest
import torch
from support.compare import close, relative
from support.golden_data import case

from pack.kernels.training_losses import GAMMA, balanced_loss, context_loss, degraded, masked_by_picture, moved_average


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_a_small_mask_weighs_little():
    out, target = noise(2, 4, 3, 5), noise(2, 4, 3, 5, seed=1)
    masks = torch.zeros(2, 1, 3, 5)
    masks[0, 0, 1], masks[1, 0, 2, 3] = 1, 0.5
    wanted = [
        sum(float(((out - target)[0, c, 1, x]) ** 2) for c in range(4) for x in range(5)) / 60,
        sum(float((0.5 * (out - target)[1, c, 2, 3]) ** 2) for c in range(4)) / 60,
    ]
    close(masked_by_picture(out, target, masks), wanted, 1e-6)


def test_the_concept_that_lags_learns_and_the_others_stay():
    # concepts of different numbers of pictures count by their means
    losses, kept = torch.tensor([0.3, 0.1, 0.25, 0.4]), torch.tensor([9.0, 2.0, 4.0, 9.0])
    loss, of_concept = balanced_loss(losses, kept, [0, 1, 1, 0], 0.5)
    close(of_concept, [0.35, 0.175], 1e-6)
    assert float(loss) == pytest.approx(0.35 + 0.5 * 3.0)
    loss, _ = balanced_loss(losses, kept, [0, 1, 2, 2], 0.5)
    assert float(loss) == pytest.approx(0.325 + 0.5 * (9 + 2) / 2)
    loss, _ = balanced_loss(losses[:1], kept[:1], [0], 0.5)
    assert float(loss) == pytest.approx(0.3)


@torch.inference_mode(False)
@torch.enable_grad()
def test_only_the_concept_that_lags_has_a_gradient():
    losses = torch.tensor([0.3, 0.1]).requires_grad_()
    balanced_loss(losses, torch.zeros(2), [0, 1], 0.2)[0].backward()
    close(losses.grad, [1.0, 0.0], 0)


def test_the_average_begins_as_a_copy():
    learned = {"up": noise(3, 2).requires_grad_()}
    first = moved_average(None, learned, 0.99)
    assert torch.equal(first["up"], learned["up"]) and not first["up"].requires_grad
    assert first["up"].data_ptr() != learned["up"].data_ptr()
    second = moved_average(first, {"up": learned["up"] + 1}, 0.99)
    close(second["up"], (learned["up"] + 0.01).detach(), 1e-6)


@pytest.mark.parametrize("step", [0, 10, 19])
def test_pictures_are_degraded_outside_their_masks(step):
    golden, params = case("training/magic_tailor")
    picture, mask, drawn = (golden[f"degrade/{name}"] for name in ("pixels", "mask", "noise"))
    found = degraded(picture, mask, drawn, step, params["total_steps"], params["alpha"])
    assert params["gamma"] == GAMMA
    assert relative(found, golden[f"degrade/step{step}"]) < 1e-6


def test_only_other_tokens_are_pulled_together():
    context, reference = noise(6, 5), noise(6, 5, seed=1)
    rows = [0, 1, 4, 5]
    wanted = sum(1 - float(context[row] @ reference[row] / context[row].norm() / reference[row].norm()) for row in rows)
    assert float(context_loss(context, reference, (2, 3))) == pytest.approx(wanted / 4, rel=1e-5)

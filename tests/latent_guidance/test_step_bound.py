"""A guided step is held to the size of a step of the sampler, image by image."""

import torch
from support.compare import close
from support.references import draw

from pack.nodes.latent_guidance.step_bound import held_to_step


def test_smaller_shifts_stay_as_they_are():
    shift = draw(2, 4, 8, 8)
    found, held = held_to_step(shift, 10.0, 8.0)
    assert torch.equal(found, shift) and held.tolist() == [False, False]


def test_each_image_is_held_by_itself_and_keeps_its_direction():
    shift = draw(2, 4, 8, 8) * torch.tensor([0.5, 50.0])[:, None, None, None]
    found, held = held_to_step(shift, 10.0, 8.0)
    assert held.tolist() == [False, True] and torch.equal(found[0], shift[0])
    close(found[1].square().mean().sqrt(), 2.0, 1e-5)
    close(found[1] / found[1].norm(), (shift[1] / shift[1].norm()).tolist(), 1e-6)


def test_no_shift_and_no_step_give_nothing():
    assert not held_to_step(torch.zeros(1, 4, 8, 8), 10.0, 10.0)[0].any()
    assert not held_to_step(draw(1, 4, 8, 8), 10.0, 10.0)[0].any()


def test_a_way_back_up_has_steps_too():
    """From lower noise to higher, as some nodes sample."""
    close(held_to_step(draw(1, 4, 8, 8) * 50, 8.0, 10.0)[0].square().mean().sqrt(), 2.0, 1e-5)


def test_half_precision_keeps_its_type():
    found, _ = held_to_step(draw(1, 4, 8, 8).half() * 500, 10.0, 8.0)
    assert found.dtype == torch.float16 and found.isfinite().all()

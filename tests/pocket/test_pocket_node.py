"""Pocket Model."""

import torch
from samples import draw
from support.models import execute

from pack.nodes.pocket.pocket_node import PocketModel


def test_it_draws_what_any_checkpoint_draws():
    parts = execute(PocketModel)
    pictures = draw(parts, "a dog on a blue background", [1, 2], steps=3)
    assert pictures.shape == (2, 128, 128, 3) and pictures.isfinite().all()
    assert pictures.std() > 0.05 and not torch.equal(pictures[0], pictures[1])


def test_two_nodes_share_the_weights():
    first, second = execute(PocketModel), execute(PocketModel)
    assert first[0].model is second[0].model and first[0] is not second[0]
    assert first[1].cond_stage_model is second[1].cond_stage_model
    assert first[2].first_stage_model is second[2].first_stage_model

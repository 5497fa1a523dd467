"""Masked blending against recorded values and a loop over tokens."""

import torch
from support.golden_data import case

from pack.kernels.feature_fusion import fuse


def test_golden():
    golden, params = case("concept_conductor/kernels")
    features = [golden[f"fuse/custom{i}"] for i in (1, 2)]
    masks = [golden[f"fuse/mask{i}"] > 0 for i in (1, 2)]
    base = golden["fuse/base"].clone()
    assert fuse(base, features, masks) is base
    assert torch.equal(base, golden["fuse/merged"])
    # the order counts where masks overlap
    wrong = fuse(golden["fuse/base"].clone(), features[::-1], masks[::-1])
    change = (wrong - base).norm() / base.norm()
    assert abs(float(change) - params["fuse_wrong_order_rel"]) < 1e-4


def test_each_token_by_hand():
    generator = torch.Generator().manual_seed(0)
    base, *features = torch.randn(4, 2, 9, 3, generator=generator)
    masks = torch.rand(3, 2, 9, generator=generator) > 0.5
    out = fuse(base.clone(), features, masks)
    for image in range(2):
        for token in range(9):
            value = base[image, token]
            for feature, mask in zip(features, masks):
                if mask[image, token]:
                    value = feature[image, token]
            assert torch.equal(out[image, token], value)


def test_rows_of_one_tensor():
    """Blending writes the image's rows of a batch and no others."""
    batch = torch.randn(3, 2, 4, 5)
    before = batch.clone()
    fuse(batch[0], [batch[1], batch[2]], [torch.ones(1, 4, dtype=torch.bool)] * 2)
    assert torch.equal(batch[0], before[2]) and torch.equal(batch[1:], before[1:])

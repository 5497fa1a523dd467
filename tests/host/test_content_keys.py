"""Keys of a MODEL's weights: each way in which the host or another pack changes them changes the key."""

from types import SimpleNamespace

import pytest
import torch

from pack.nodes.host.content_keys import rest_digest, weights_key
from pack.nodes.host.contexts import FixedContexts

HOOK, MODULE, OTHER = object(), torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)


def patcher(uuid=1, hooks=((HOOK, 1.0),), injections=(MODULE,), replaced=(("diffusion_model.out", MODULE),)):
    found = [SimpleNamespace(hook_ref=reference, strength=strength) for reference, strength in hooks]
    return SimpleNamespace(
        patches_uuid=uuid,
        current_hooks=SimpleNamespace(hooks=found) if found else None,
        injections={"somebody": list(injections)},
        object_patches=dict(replaced),
    )


def test_equal_ones_share_a_key():
    assert weights_key(patcher()) == weights_key(patcher()) and hash(weights_key(patcher())) is not None
    # what is replaced outside of the UNet does not change what it gives
    sampling = {"replaced": (("diffusion_model.out", MODULE), ("model_sampling", OTHER))}
    assert weights_key(patcher()) == weights_key(patcher(**sampling))


@pytest.mark.parametrize(
    "change",
    [
        {"uuid": 2},
        {"hooks": ()},
        {"hooks": ((HOOK, 0.5),)},
        {"hooks": ((object(), 1.0),)},
        {"injections": ()},
        {"injections": (OTHER,)},
        {"replaced": ()},
        {"replaced": (("diffusion_model.out", OTHER),)},
        {"replaced": (("diffusion_model.in", MODULE),)},
    ],
    ids=" ".join,
)
def test_any_change_is_another_key(change):
    assert weights_key(patcher(**change)) != weights_key(patcher())


def test_a_new_object_in_the_place_of_an_old_one_is_another():
    """An id alone may come back with a new object."""
    key = weights_key(patcher(injections=(torch.nn.Linear(1, 1),)))
    assert all(key != weights_key(patcher(injections=(torch.nn.Linear(1, 1),))) for _ in range(20))


def test_a_model_that_nobody_has_loaded():
    assert weights_key(None) == ()


def test_what_a_conditioning_holds_beside_its_first_text():
    first, other = torch.zeros(1, 2, 3), torch.ones(1, 2, 3)
    plain = [[first, {"pooled_output": torch.ones(1, 4), "hooks": None}]]
    assert rest_digest(plain, [[other, {}]]) == b""
    ranged, layered = (
        [[first, {"start_percent": start, "layers": FixedContexts(rows)}]]
        for start, rows in ((0.5, first), (0.5, other))
    )
    others = [plain + [[other, {}]], plain + [[first, {}]], ranged, layered, [[first, {"strength": 0.5}]]]
    digests = [rest_digest(one) for one in others]
    assert len({b"", *digests}) == 1 + len(others)
    assert digests == [rest_digest(one) for one in others]
    # whose it is counts as well
    assert rest_digest(ranged, plain) != rest_digest(plain, ranged)
    # nobody can tell by content what an object does
    controlled = [[first, {"control": object()}]]
    assert rest_digest(controlled) != rest_digest(controlled)

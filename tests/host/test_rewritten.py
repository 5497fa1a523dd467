"""Which wrappers may change what rows read: those of others, between the prompts and the UNet."""

import pytest
from comfy.patcher_extension import WrappersMP

from pack.nodes.host.rewritten import may_be_rewritten


def options(kind, key, several=(print,)):
    return {"wrappers": {kind: {key: list(several)}}}


@pytest.mark.parametrize("kind", ["calc_cond_batch", "apply_model", "diffusion_model"])
def test_a_wrapper_of_another_pack_between_the_two(kind):
    assert getattr(WrappersMP, kind.upper()) == kind
    assert may_be_rewritten(options(kind, "another pack"), {})
    assert may_be_rewritten(options(kind, None), {})


def test_our_own_and_those_elsewhere_change_no_text():
    assert not may_be_rewritten({}, {})
    assert not may_be_rewritten(options(WrappersMP.APPLY_MODEL, "personalization"), {})
    assert not may_be_rewritten(options(WrappersMP.APPLY_MODEL, "torch.compile"), {})
    assert not may_be_rewritten(options(WrappersMP.APPLY_MODEL, "another pack", ()), {})
    assert not may_be_rewritten(options(WrappersMP.OUTER_SAMPLE, "another pack"), {})


@pytest.mark.parametrize("name", ["model_function_wrapper", "sampler_calc_cond_batch_function"])
def test_functions_in_a_models_options(name):
    assert may_be_rewritten({}, {name: print})

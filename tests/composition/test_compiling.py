"""torch.compile beside our nodes: a compiled MODEL gives what it gives uncompiled, whoever is compiled first."""

import pytest
import torch
from comfy.ldm.modules.attention import BasicTransformerBlock
from composition.foreign import by_node
from support.compare import differ
from support.concepts import both_kinds, conducted
from support.image_prompts import with_pictures
from support.models import conditioning, execute, sample, tiny_model
from support.references import PixelVAE, draw, picture, prompt, with_references
from support.thorough import few_of

from pack.nodes.host.attach import attach
from pack.nodes.host.compiled import uncompiled
from pack.nodes.host.layered_prompts import LAYERS, PLAIN
from pack.nodes.masks.layout_mask_node import LayoutMask
from pack.nodes.text_contexts.context_router import ContextRouter

nodes_torch_compile = pytest.importorskip("comfy_extras.nodes_torch_compile")

SAME = 1e-5


@pytest.fixture(autouse=True)
def _nothing_compiled():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture
def model():
    return tiny_model("sd15")


class Counted:
    """A backend that generates no code; dynamo traces and guards for it as for all. `graphs` counts what it gets."""

    def __init__(self):
        self.graphs = 0

    def __call__(self, graph, inputs):
        self.graphs += 1
        return graph.forward


def by_wrapper(model, backend):
    """The host's own node."""
    return by_node(nodes_torch_compile.TorchCompileModel, backend)(model)


def guardless(entries):
    return ["transformer_options" not in entry.name for entry in entries]


def by_patch(model, backend):
    """As other packs do: the compiled UNet in the place of the UNet."""
    patched = model.clone()
    unet = torch.compile(model.model.diffusion_model, backend=backend, options={"guard_filter_fn": guardless})
    patched.add_object_patch("diffusion_model", unet)
    return patched


def by_blocks(model, backend):
    """Each transformer block compiled on its own."""
    patched = model.clone()
    for name, module in model.model.named_modules():
        if isinstance(module, BasicTransformerBlock):
            patched.add_object_patch(name, torch.compile(module, backend=backend))
    return patched


HOW = {"wrapper": by_wrapper, "patch": by_patch, "blocks": by_blocks}


def concepts(model):
    """An ordinary LoRA, and one that needs weights of its own; guidance and refined masks."""
    return conducted(model, both_kinds(model), layout=True, guidance_weight=0.01, refine_start=0.0, refine_end=1.0)


def layered(model):
    """A MODEL as Load ED-LoRA gives it, without the LoRA; `run` gives it a prompt per layer."""
    return attach(model, ContextRouter(("ED-LoRA",)))


def run(model):
    contexts = draw(16, 7, 32, seed=3)
    positive = conditioning(contexts[:1], **{LAYERS: contexts, PLAIN: contexts[:1]})
    return sample(model, positive, prompt(model, 200), steps=2)


TECHNIQUES = {"MRSA": with_references, "MIP-Adapter": with_pictures, "ED-LoRA": layered, "concepts": concepts}


@pytest.mark.parametrize("first", [True, False], ids=["compiled first", "compiled last"])
@pytest.mark.parametrize("technique", TECHNIQUES)
@pytest.mark.parametrize("how", few_of(HOW, "wrapper"))
def test_compiled_is_as_uncompiled(model, how, technique, first, said):
    ours, backend = TECHNIQUES[technique], Counted()
    wanted = run(ours(model))
    compiled = ours(HOW[how](model, backend)) if first else HOW[how](ours(model), backend)
    assert differ(run(compiled), wanted) < SAME
    assert len([sentence for sentence in said if "torch.compile is off" in sentence]) == 1
    # no graph is left behind that other runs could get, and no keys
    assert backend.graphs == 0
    assert differ(run(ours(model)), wanted) < SAME


@pytest.mark.slow
def test_runs_without_us_are_compiled_before_and_after(model):
    backend = Counted()
    ours, bare = with_references(model), by_wrapper(model, backend)
    wanted, plain = run(ours), run(model)
    assert differ(wanted, plain) > 1e-2
    # whoever is compiled first
    for _ in range(2):
        assert differ(run(bare), plain) < SAME
        assert differ(run(by_wrapper(ours, backend)), wanted) < SAME
    assert backend.graphs > 0


def test_the_bank_holds_no_key_of_a_compiled_run(model):
    run(by_wrapper(with_references(model), "eager"))
    found = run(with_references(model))
    assert differ(found, run(with_references(tiny_model("sd15")))) < SAME


@pytest.mark.parametrize("how", few_of(HOW, "wrapper"))
def test_a_layout_mask_of_a_compiled_model(model, how):
    image = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(1))
    inputs, backend = {"vae": PixelVAE(), "layout_image": image, "layout_positive": prompt(model, 1)}, Counted()
    wanted = execute(LayoutMask, model=model, **inputs)[0]
    assert torch.equal(execute(LayoutMask, model=HOW[how](model, backend), **inputs)[0], wanted)
    assert backend.graphs == 0


def test_runs_at_the_same_time_leave_compiling_as_it_was():
    """The stance is one for all threads: whoever leaves last restores it."""
    first, second = uncompiled(), uncompiled()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert torch._dynamo.eval_frame._stance.stance == "force_eager"
    second.__exit__(None, None, None)
    assert torch._dynamo.eval_frame._stance.stance == "default"


def test_compiling_that_cannot_be_switched_off_is_refused(model, monkeypatch):
    monkeypatch.delattr(torch.compiler, "set_stance")
    assert torch.isfinite(picture(with_references(model))).all()
    with pytest.raises(ValueError, match="update PyTorch to 2.6"):
        picture(by_wrapper(with_references(model), "eager"))

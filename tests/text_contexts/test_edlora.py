"""Layer-wise prompts in an ordinary sampler: each row's layers read their own context, whatever stands beside them."""

import contextlib

import pytest
import torch
from comfy.ldm.modules.attention import BasicTransformerBlock
from comfy.patcher_extension import WrappersMP
from comfy_extras import nodes_pag, nodes_sag
from composition.foreign import by_node
from composition.scene import same, unlike
from support.clips import encoded, tiny_clip
from support.edloras import loras, put, random_contents  # noqa: F401 (fixture)
from support.models import StubVAE, conditioning, execute, recording, sample, tiny_model
from support.thorough import few_of

import nodes
from pack.nodes.host.attach import attach
from pack.nodes.host.layered_prompts import LAYERS, PLAIN, contexts_of
from pack.nodes.reference_attention.mrsa_node import MultiReferenceSelfAttention
from pack.nodes.references.references_node import AddReference
from pack.nodes.text_contexts.context_router import ContextRouter
from pack.nodes.text_contexts.edlora_node import EDLoRALoader

WIDTH = {"sd15": 32, "sdxl": 48}
SIGMAS = torch.tensor([5.0, 1.0, 0.0])


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def layered(kind="sd15", tokens=7, seed=0, **values):
    """A conditioning with contexts for all layers, as the encoder makes it."""
    count = {"sd15": 16, "sdxl": 28}[kind]
    contexts = random(count, tokens, WIDTH[kind], seed=seed)
    if kind == "sdxl":
        values["pooled_output"] = random(1, 40, seed=seed + 1)
    return conditioning(contexts[:1], **{LAYERS: contexts, PLAIN: contexts[:1]}, **values)


def plain(kind="sd15", tokens=7, seed=100):
    values = {"pooled_output": random(1, 40, seed=seed + 1)} if kind == "sdxl" else {}
    return conditioning(random(1, tokens, WIDTH[kind], seed=seed), **values)


@contextlib.contextmanager
def every_block(unet, change):
    """change(index of the block in order of execution, its context) -> context, for every call of the UNet."""
    handles = []
    for index, block in enumerate(m for m in unet.modules() if isinstance(m, BasicTransformerBlock)):

        def swap(module, args, kwargs, index=index):
            return args, {**kwargs, "context": change(index, kwargs["context"])}

        handles.append(block.register_forward_pre_hook(swap, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def by_row(*entries):
    """A change for `every_block` that tells rows by their plain context and gives them their layer's."""

    def change(index, context):
        rows = []
        for row in context:
            for tensor, values, *layers in entries:
                if torch.equal(tensor[0].repeat(len(row) // tensor.shape[1], 1), row):
                    own = (layers[0] if layers else values[LAYERS])[index]
                    row = own.repeat(len(row) // len(own), 1)
                    break
            rows.append(row)
        return torch.stack(rows)

    return change


def run(model, positive, negative, kind="sd15", batch=1, size=(8, 8), **settings):
    return sample(model, positive, negative, latent=(batch, 4, *size), sigmas=SIGMAS, **settings)


def check(kind, positive, negative, entries, **settings):
    """Our MODEL's latent = that of the bare one with the contexts swapped by hand; the bare one's own is another."""
    bare = tiny_model(kind, seed=1)
    ours = run(attach(bare, ContextRouter(("ED-LoRA",))), positive, negative, kind, **settings)
    with every_block(bare.model.diffusion_model, by_row(*entries)):
        expected = run(bare, positive, negative, kind, **settings)
    assert same(ours, expected)
    assert unlike(ours, run(bare, positive, negative, kind, **settings))
    return ours


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
@pytest.mark.parametrize("batch", [1, 2])
def test_positive(kind, batch):
    (entry,) = layered(kind)
    check(kind, [entry], plain(kind), [entry], batch=batch)


def test_layer_wise_and_plain_prompts_share_a_batch():
    model, recorder = recording(attach(tiny_model(), ContextRouter(("ED-LoRA",))))
    run(model, layered(), plain())
    assert [len(call.x) for call in recorder.calls] == [2, 2]


def test_non_square_odd_size_and_cfg_1():
    (entry,) = layered()
    check("sd15", [entry], plain(), [entry], size=(9, 13), batch=3)
    check("sd15", [entry], plain(), [entry], cfg=1.0)


def test_both_sides():
    (positive,), (negative,) = layered(seed=1), layered(seed=2)
    check("sd15", [positive], [negative], [positive, negative])


def test_prompts_of_other_lengths():
    """The host repeats the shorter one (14 against 7 tokens), or runs them apart (7 against 10)."""
    for tokens in (14, 10):
        (entry,) = layered()
        check("sd15", [entry], plain(tokens=tokens), [entry])
        (longer,) = layered(tokens=tokens)
        check("sd15", [longer], plain(), [longer])


def test_combined_masked_and_timed():
    (one,), (two,), (three,) = layered(seed=1), plain(seed=2), layered(seed=3)
    check("sd15", [one, two, three], plain(), [one, three])
    mask = torch.zeros(1, 64, 64)
    mask[:, :, :32] = 1
    masked = nodes.ConditioningSetMask().append([one], mask, "default", 1.0)[0]
    check("sd15", [*masked, two], plain(), [one])
    area = nodes.ConditioningSetArea().append([one], 32, 64, 0, 0, 1.0)[0]
    check("sd15", [*area, two], plain(), [one])
    early = nodes.ConditioningSetTimestepRange().set_range([one], 0.0, 0.3)[0]
    late = nodes.ConditioningSetTimestepRange().set_range([three], 0.3, 1.0)[0]
    check("sd15", [*early, *late], plain(), [one, three])


def test_concatenated():
    (entry,), (tail,) = layered(), plain(tokens=3)
    (joined,) = nodes.ConditioningConcat().concat([entry], [tail])[0]
    layers = torch.cat([entry[1][LAYERS], tail[0].expand(16, -1, -1)], 1)
    check("sd15", [joined], plain(tokens=10), [(*joined, layers)])


def test_what_nodes_do_to_the_plain_context():
    ((tensor, values),) = layered()
    layers = values[LAYERS]

    def keys(tensor, values):
        keys, apart = contexts_of(tensor, values).at(500)
        assert apart is None
        return keys

    assert torch.equal(keys(tensor, values), layers)
    assert torch.allclose(keys(tensor * 0.5, values), layers * 0.5, atol=1e-6)
    assert not keys(torch.zeros_like(tensor), values).any()
    other = random(1, 7, 32, seed=5)
    averaged = keys(0.8 * tensor + 0.2 * other, values)
    assert torch.allclose(averaged - averaged[:1], layers - layers[:1], atol=1e-5)
    assert torch.allclose(averaged[:1], 0.8 * tensor + 0.2 * other, atol=1e-6)
    assert contexts_of(tensor, {}) is None
    # from who says nothing of a plain context: the layers as they are
    assert torch.equal(keys(other, {LAYERS: layers}), layers)
    ((zeroed, zeros),) = nodes.ConditioningZeroOut().zero_out([[tensor, values]])[0]
    assert not keys(zeroed, zeros).any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    (entry,) = layered()
    exact = run(attach(tiny_model(seed=1), ContextRouter(("ED-LoRA",))), [entry], plain())
    ours = run(attach(tiny_model(seed=1, dtype=dtype), ContextRouter(("ED-LoRA",))), [entry], plain())
    assert (ours - exact).norm() / exact.norm() < (0.01 if dtype == torch.float16 else 0.1)


def test_ordinary_prompts_are_the_hosts_to_the_last_bit():
    bare = tiny_model()
    ours = attach(bare, ContextRouter(("ED-LoRA",)))
    assert torch.equal(run(ours, plain(), plain(seed=2)), run(bare, plain(), plain(seed=2)))


def test_contexts_of_one_layer_are_for_all():
    context = random(1, 7, 32, seed=4)
    one = conditioning(torch.zeros_like(context), **{LAYERS: context})
    bare = tiny_model(seed=1)
    ours = run(attach(bare, ContextRouter(("ED-LoRA",))), one, plain())
    assert same(ours, run(bare, conditioning(context), plain()))


def test_contexts_for_another_model():
    wrong = conditioning(random(1, 7, 32), **{LAYERS: random(28, 7, 32)})
    with pytest.raises(ValueError, match="has embeddings for 28 cross-attentions, this model has 16: encode it with"):
        run(attach(tiny_model(), ContextRouter(("ED-LoRA",))), wrong, plain())


def scaled(n, context, value, options):
    return n * 1.1, context, value * 0.9


def seen(store):
    """A patch of another pack that only looks."""

    def look(n, context, value, options):
        store.append((options["block"], options["block_index"], context, value))
        return n, context, value

    return look


def test_beside_patches_of_other_packs():
    """Another pack's attn2_patch, put in before or behind, finds the layers' contexts; both act."""
    (entry,) = layered()
    for order in (0, 1):
        model, store = tiny_model(seed=1), []

        def patched(model, store=store):
            model = model.clone()
            model.set_model_attn2_patch(seen(store))
            model.set_model_attn2_patch(scaled)
            return model

        both = (
            attach(patched(model), ContextRouter(("ED-LoRA",)))
            if order
            else patched(attach(model, ContextRouter(("ED-LoRA",))))
        )
        ours = run(both, [entry], plain())
        assert all(torch.equal(context, value) for _, _, context, value in store)
        calls = [context for block, index, context, _ in store if (block, index) == (("output", 5), 0)]
        assert torch.equal(calls[0][1], entry[1][LAYERS][9]) and torch.equal(calls[0][0], plain()[0][0][0])
        bare = patched(model)
        with every_block(bare.model.diffusion_model, by_row(entry)):
            assert same(ours, run(bare, [entry], plain()))


@pytest.mark.parametrize(
    "guided",
    [by_node(nodes_pag.PerturbedAttentionGuidance, 2.0), by_node(nodes_sag.SelfAttentionGuidance, 0.6, 1.5)],
    ids=["PAG", "SAG"],
)
def test_beside_guidance_that_calls_the_unet_itself(guided):
    (entry,) = layered()
    bare = guided(tiny_model(seed=1))
    ours = run(guided(attach(tiny_model(seed=1), ContextRouter(("ED-LoRA",)))), [entry], plain(), size=(16, 16))
    with every_block(bare.model.diffusion_model, by_row(entry)):
        assert same(ours, run(bare, [entry], plain(), size=(16, 16)))


def test_beside_mrsa(loras):  # noqa: F811
    """Both techniques on one MODEL, in either order; references read their own plain prompts."""
    (entry,) = layered()
    latent = random(1, 4, 8, 8, seed=9)

    class Clip:
        def tokenize(self, text):
            return text

        def encode_from_tokens_scheduled(self, tokens):
            return plain(seed=7)

    def referring(model):
        (references,) = execute(AddReference, image=torch.rand(1, 64, 64, 3), word="cat")
        inputs = {"clip": Clip(), "vae": StubVAE(model, latent), "cache_mb": 0}
        return execute(MultiReferenceSelfAttention, model=model, references=references, **inputs)[0]

    base = tiny_model(seed=1)
    ours = run(referring(attach(base, ContextRouter(("ED-LoRA",)))), [entry], plain())
    turned = run(attach(referring(base), ContextRouter(("ED-LoRA",))), [entry], plain())
    bare = referring(base)
    with every_block(base.model.diffusion_model, by_row(entry)):
        expected = run(bare, [entry], plain())
    assert torch.equal(ours, turned) and same(ours, expected)
    assert unlike(ours, run(bare, [entry], plain())) and unlike(
        ours, run(attach(base, ContextRouter(("ED-LoRA",))), [entry], plain())
    )


def test_interrupt_leaves_nothing():
    (entry,) = layered()
    bare = tiny_model()
    ours = attach(bare, ContextRouter(("ED-LoRA",)))
    expected = run(ours, [entry], plain())
    stopping = ours.clone()

    def stop(executor, *args, **kwargs):
        executor(*args, **kwargs)
        raise KeyboardInterrupt

    stopping.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "stop", stop)
    with pytest.raises(KeyboardInterrupt):
        run(stopping, [entry], plain())
    assert torch.equal(run(ours, [entry], plain()), expected)
    assert not bare.wrappers and "patches" not in bare.model_options["transformer_options"]


@pytest.mark.parametrize("kind", few_of(["sd15", "sdxl"], "sd15"))
@pytest.mark.parametrize("layers", [None, 1], ids=["layer-wise", "vanilla"])
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_loader_in_an_ordinary_graph(kind, layers, ending, loras):  # noqa: F811
    """Checkpoint, Load ED-LoRA, CLIP Text Encode, KSampler; the MODEL's own blocks see what the words mean."""
    model, widths = tiny_model(kind, seed=1), {"sd15": {"l": 32}, "sdxl": {"l": 16, "g": 32}}[kind]
    clip = tiny_clip(kind, widths=widths)
    contents = random_contents(model, clip, layers=layers)
    name = put(loras / f"dog.{ending}", contents)
    patched, taught, words = execute(EDLoRALoader, model=model, clip=clip, edlora_file=name)
    assert words == "<dog_1> <dog_2>"
    (encode,) = (lambda text: nodes.CLIPTextEncode().encode(taught, text)[0],)
    positive, negative = encode(f"a {words} on the beach"), encode("blurry")
    if kind == "sdxl":
        for _, values in (*positive, *negative):
            values["pooled_output"] = random(1, 40, seed=3)
    assert (LAYERS in positive[0][1]) == (layers is None)
    patched, recorder = recording(patched)
    latent = torch.zeros(2, 4, 8, 8)
    inputs = {"seed": 1, "steps": 2, "cfg": 7.0, "sampler_name": "euler", "scheduler": "normal"}
    ours = nodes.KSampler().sample(patched, *inputs.values(), positive, negative, {"samples": latent})[0]["samples"]
    assert ours.shape == latent.shape and torch.isfinite(ours).all()
    # the LoRA alone, by the stock loader, with contexts swapped by hand
    bare = patched.clone()
    bare.wrappers.clear()
    with every_block(model.model.diffusion_model, by_row(*([positive[0]] if layers is None else []))):
        expected = nodes.KSampler().sample(bare, *inputs.values(), positive, negative, {"samples": latent})[0]
    assert same(ours, expected["samples"])
    off, silent, _ = execute(EDLoRALoader, model=model, clip=clip, edlora_file=name, strength_model=0, strength_clip=0)
    assert not off.patches and not silent.patcher.patches
    assert encoded(silent, "blurry")[0][0].equal(encoded(clip, "blurry")[0][0])

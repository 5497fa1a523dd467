"""Adapters per row against models that the host's own LoRA loader patched, row by row."""

import comfy.ldm.modules.attention as attention
import comfy.model_management
import comfy.ops
import pytest
import torch
from bench.flops import host_model
from comfy.patcher_extension import WrappersMP
from support.loras import ADDITIVE, CONV1, CONV3, LAYERS, LINEAR, LINEARS, STRIDED, Maker, loaded, unet_inputs
from support.models import conditioning, sample, tiny_model
from support.resadapter_sets import equal, patched_unet, weights_of
from support.thorough import few_of
from torch.utils.flop_counter import FlopCounterMode

from pack.nodes.row_adapters.batch_adapters import RowAdapters
from pack.nodes.row_adapters.concept_deltas import concept_deltas
from pack.nodes.row_adapters.weight_patches import patches_beyond as beyond

KINDS = {"linear": LINEARS, "1 x 1": (CONV1,), "3 x 3": (CONV3,), "strided": (STRIDED,)}


@pytest.fixture(scope="module")
def base():
    # random weights: those of the golden UNet carry rounding on a hundred times larger
    return tiny_model(seed=1)


def run(model, inputs, adapters=None, order=None):
    """The UNet's output with a MODEL's own patches, or with adapters on the rows."""
    x, t, context, y = inputs
    if adapters is None:
        with patched_unet(model) as unet:
            return unet(x, t, context, y)
    unet = model.model.diffusion_model
    with adapters.active(unet, order):
        return unet(x, t, context, y)


def expected(models, inputs, order):
    outputs = [run(model, inputs) for model in models]
    return torch.stack([outputs[path][row] for row, path in enumerate(order)])


def check(base, concepts, order, limit=1e-5, inputs=None, strength=1.0):
    """Rows in one batch = each path's rows in a model with patched weights."""
    inputs = inputs or unet_inputs(len(order))
    deltas = [concept_deltas(base, concept, strength) for concept in concepts]
    assert not any(one.needs_own_forward for one in deltas)
    plain = run(base, inputs)
    out = run(base, inputs, RowAdapters(base, deltas), order)
    wanted = expected([base, *concepts], inputs, order)
    assert (out - wanted).norm() / wanted.norm() < limit
    # the adapters act, the base's rows are the base's to the last bit, and nothing is left
    acting = [row for row, path in enumerate(order) if path]
    assert all((out[row] - plain[row]).abs().max() > 1e-3 for row in acting)
    assert all(torch.equal(out[row], plain[row]) for row, path in enumerate(order) if not path)
    assert torch.equal(run(base, inputs), plain)
    return out


@pytest.mark.parametrize("layers", few_of(KINDS, "linear", "strided"))
@pytest.mark.parametrize("kind", [kind for kind in ADDITIVE if kind != "lokr_low_rank"])
def test_each_kind_of_adapter(base, kind, layers):
    # to_k has no bias
    layers = LINEARS[1:] if kind.startswith("diff") and layers == "linear" else KINDS[layers]
    size = 2.0 if kind.startswith("loha") else 0.5
    one = loaded(base, Maker(base, 1, size)(kind, layers, rank=4, alpha=3), 0.7)
    two = loaded(base, Maker(base, 2, size)(kind, layers, rank=6), -0.8)
    check(base, [one, two], [0, 1, 2, 1, 0])


def test_the_hosts_formula_at_a_tucker_lokr(base):
    """Some hosts fail to lay out this one on a CPU and skip it; the layer itself tells."""
    file = Maker(base, 1)("lokr_low_rank", (CONV3,), alpha=3)
    adapters = RowAdapters(base, [concept_deltas(base, loaded(base, file, 0.7))])
    parts = {name.rpartition(".")[2]: tensor for name, tensor in file.items()}
    right = torch.einsum("ijkl,jr,ip->prkl", *(parts[f"lokr_{name}"] for name in ("t2", "w2_b", "w2_a")))
    left = parts["lokr_w1_a"] @ parts["lokr_w1_b"]
    weight = torch.kron(left[:, :, None, None], right.contiguous()) * 0.7 * 3 / 4
    layer = dict(base.model.diffusion_model.named_modules())[CONV3]
    x = torch.randn(2, weight.shape[1], 6, 6)
    with adapters.active(base.model.diffusion_model, [0, 1]):
        out = layer(x)
    wanted = layer(x)[1] + torch.nn.functional.conv2d(x[1:], weight, padding=1)[0]
    assert torch.allclose(out[1], wanted, atol=1e-5)
    assert torch.equal(out[0], layer(x)[0])


ORDERS = {
    "as stacked": [1, 1, 2, 2, 3, 3],
    "as the host runs them": [3, 3, 2, 2, 1, 1, 0, 0],
    "images inside": [0, 1, 2, 3, 0, 1, 2, 3],
    "of different counts": [2, 0, 1, 3, 3, 1, 3],
    "one path alone": [2, 2],
    "two of three": [3, 1],
}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_any_order_of_rows(base, order):
    concepts = [loaded(base, Maker(base, seed)("lora", rank=rank)) for seed, rank in enumerate((4, 5, 32), 1)]
    check(base, concepts, order)


def test_rows_as_a_tensor(base):
    concept = loaded(base, Maker(base)("lora"))
    check(base, [concept], torch.tensor([1, 0, 1]))
    adapters = RowAdapters(base, [concept_deltas(base, concept)])
    inputs = unet_inputs(3)
    by_list, by_tensor = (run(base, inputs, adapters, order) for order in ([1, 0, 1], torch.tensor([1, 0, 1])))
    assert torch.equal(by_list, by_tensor)


def test_several_loras_per_concept_and_layers_of_some(base):
    one = loaded(base, Maker(base, 1)("lora", LAYERS, rank=4), 0.6)
    one = loaded(one, Maker(base, 2)("loha", (LINEAR, CONV3), rank=2), -1.0)
    one = loaded(one, Maker(base, 3)("lokr", (LINEAR, STRIDED)), 0.4)
    two = loaded(base, Maker(base, 4)("lora", (CONV1, CONV3), rank=16), 1.2)
    check(base, [one, two], [0, 1, 2, 2])


def test_what_both_have_belongs_to_all(base):
    style, own = (Maker(base, seed)("lora") for seed in (1, 2))
    styled = loaded(base, style, 0.5)
    # loaded anew, as two loader nodes would
    concept = loaded(loaded(base, {k: v.clone() for k, v in style.items()}, 0.5), own)
    deltas = concept_deltas(styled, concept)
    assert set(deltas.patches) == set(concept.patches)
    assert all(len(patches) == 1 for patches in deltas.patches.values())
    assert deltas == concept_deltas(base, loaded(base, own))
    # a LoRA on both at two strengths leaves the difference
    stronger = loaded(base, style, 0.8)
    assert {p[0] for patches in concept_deltas(styled, stronger).patches.values() for p in patches} == {0.8 - 0.5}
    assert not concept_deltas(styled, styled)
    assert not concept_deltas(styled, base)


def test_twice_the_same_patch():
    patch = (1.0, (torch.ones(2),), 1.0, None, None)
    again = (1.0, (torch.ones(2),), 1.0, None, None)
    assert beyond({"k": [patch]}, {"k": [again, patch]}) == {"k": [patch]}
    assert beyond({"k": [patch]}, {"k": [again]}) == {}


def test_strength(base):
    concept, half = (loaded(base, Maker(base)("lora"), s) for s in (1.0, 0.5))
    inputs = unet_inputs(2)
    ours = run(base, inputs, RowAdapters(base, [concept_deltas(base, concept, 0.5)]), [1, 1])
    assert torch.allclose(ours, run(half, inputs), atol=1e-5)
    assert not concept_deltas(base, concept, 0.0)
    assert concept_deltas(base, concept, 0.5) == concept_deltas(base, half)


def test_equal_concepts(base):
    file = Maker(base)("lora")
    one, two = (concept_deltas(base, loaded(base, {k: v.clone() for k, v in file.items()})) for _ in range(2))
    other = concept_deltas(base, loaded(base, file, 0.9))
    assert one == two and hash(one) == hash(two) and one != other
    assert len({one, two, other}) == 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    base = tiny_model(dtype=dtype, seed=1)
    concept = loaded(base, Maker(base)("lora"))
    inputs = [t if t is None else t.to(dtype) if index != 1 else t for index, t in enumerate(unet_inputs(2))]
    out = run(base, inputs, RowAdapters(base, [concept_deltas(base, concept)]), [1, 0])
    exact = tiny_model(seed=1)
    wanted = expected([exact, loaded(exact, Maker(exact)("lora"))], unet_inputs(2), [1, 0])
    rounded = expected([base, concept], inputs, [1, 0]).float()
    assert out.dtype == dtype
    assert (out.float() - wanted).norm() < 2 * (rounded - wanted).norm()


def test_weights_that_are_cast_on_the_fly(base, monkeypatch):
    """As after partial loading: the layers cast their weights at each call."""
    concept = loaded(base, Maker(base)("lora"))
    inputs = unet_inputs(2)
    plain = run(base, inputs, RowAdapters(base, [concept_deltas(base, concept)]), [1, 0])
    lazy = tiny_model(seed=1)
    for module in lazy.model.diffusion_model.modules():
        if isinstance(module, comfy.ops.CastWeightBiasOp):
            monkeypatch.setattr(module, "comfy_cast_weights", True)
    lazy.model.diffusion_model.to(torch.float16)
    out = run(lazy, inputs, RowAdapters(lazy, [concept_deltas(lazy, loaded(lazy, Maker(lazy)("lora")))]), [1, 0])
    assert (out - plain).norm() / plain.norm() < 5e-3


def test_gradient_to_the_latent(base):
    concepts = [loaded(base, Maker(base, seed)("lora")) for seed in (1, 2)]
    # made in inference mode, as in a node
    adapters = RowAdapters(base, [concept_deltas(base, concept) for concept in concepts])
    x, t, context, _ = unet_inputs(3)
    with torch.inference_mode(False), torch.enable_grad():
        gradients = []
        for model in (tiny_model(seed=1), *(loaded(tiny_model(seed=1), Maker(base, seed)("lora")) for seed in (1, 2))):
            with patched_unet(model) as unet:
                unet.requires_grad_(False)
                gradients.append(gradient(unet, x, t, context))
        normal = tiny_model(seed=1).model.diffusion_model.requires_grad_(False)
        with adapters.active(normal, [2, 0, 1]):
            ours = gradient(normal, x, t, context)
    for row, path in enumerate([2, 0, 1]):
        assert (ours[row] - gradients[path][row]).norm() / gradients[path][row].norm() < 1e-4


def gradient(unet, x, t, context):
    x = x.clone().requires_grad_()
    loss = (unet(x, t.clone(), context.clone()) ** 2).sum()
    return torch.autograd.grad(loss, x)[0]


def test_adapters_that_the_host_moved_in_inference_mode(base):
    adapters = RowAdapters(base, [concept_deltas(base, loaded(base, Maker(base)("lora")))])
    inputs = unet_inputs(1)
    wanted = run(base, inputs, adapters, [1])
    for parameter in adapters.models()[0].model.parameters():
        parameter.data = parameter.data.clone()  # an inference tensor now
    with torch.inference_mode(False), torch.enable_grad():
        normal = tiny_model(seed=1).model.diffusion_model.requires_grad_(False)
        with adapters.active(normal, [1]):
            x = inputs[0].clone().requires_grad_()
            out = normal(x, inputs[1].clone(), inputs[2].clone())
            assert torch.autograd.grad(out.sum(), x)[0].abs().max() > 0
    assert torch.allclose(out.detach(), wanted, atol=1e-5)


def test_nothing_is_left_behind(base):
    unet = base.model.diffusion_model
    before = weights_of(base)
    adapters = RowAdapters(base, [concept_deltas(base, loaded(base, Maker(base)("lora")))])
    inputs = unet_inputs(2)
    plain = run(base, inputs)

    def stop(*_):
        raise KeyboardInterrupt

    handle = dict(unet.named_modules())[CONV3].register_forward_hook(stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(base, inputs, adapters, [0, 1])
    finally:
        handle.remove()
    assert not any(module._forward_hooks for module in unet.modules())
    assert all("forward" not in vars(module) for module in unet.modules())
    assert torch.equal(run(base, inputs), plain) and equal(before, weights_of(base))


def test_only_affected_layers_are_touched(base):
    unet = base.model.diffusion_model
    adapters = RowAdapters(base, [concept_deltas(base, loaded(base, Maker(base)("lora", (LINEAR, CONV3))))])
    with adapters.active(unet, [0, 1]):
        assert {name for name, module in unet.named_modules() if module._forward_hooks} == {LINEAR, CONV3}
    # the ordinary path where only the base is present
    with adapters.active(unet, [0, 0]):
        assert not any(module._forward_hooks for module in unet.modules())
    with adapters.active(unet, [1, 1]), adapters.active(unet, [0, 0]):
        pass
    with (
        pytest.raises(ValueError, match="row 1 is of path 2; there are 1 beside the base"),
        adapters.active(unet, [0, 2]),
    ):
        pass


def test_flops(base):
    """The counted cost is 2 * rank * (inputs + outputs) per row and token, as the spec's formula."""
    ranks = (4, 4)
    attention = [
        name for name, _ in base.model.diffusion_model.named_modules() if name.endswith(("to_q", "to_k", "to_v"))
    ]
    concepts = [loaded(base, Maker(base, seed)("lora", attention, rank)) for seed, rank in enumerate(ranks)]
    adapters = RowAdapters(base, [concept_deltas(base, concept) for concept in concepts])
    inputs = unet_inputs(6)

    def counted(order):
        with FlopCounterMode(display=False) as counter:
            run(base, inputs, adapters, order)
        return counter.get_total_flops()

    tokens = {}
    handles = [
        module.register_forward_hook(lambda _, args, out, name=name: tokens.update({name: out.shape[1]}))
        for name, module in base.model.diffusion_model.named_modules()
        if name in attention
    ]
    plain = counted([0] * 6)
    for handle in handles:
        handle.remove()
    per_row = sum(2 * 4 * sum(Maker(base).shapes[f"{name}.weight"]) * tokens[name] for name in attention)
    assert counted([0, 0, 1, 1, 2, 2]) - plain == 4 * per_row
    assert counted([1, 0, 0, 2, 0, 0]) - plain == 2 * per_row


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "size", "per_rank"), [("sd15", 64, 0.285e9), ("sdxl", 128, 2.59e9)])
def test_flops_at_true_size(kind, size, per_rank, monkeypatch):
    """What a unit of rank on all attentions costs per row of the true UNets at 512 and 1024 pixels, computed apart."""
    monkeypatch.setattr(attention, "optimized_attention", attention.attention_pytorch)
    model = host_model(kind, device="meta")
    unet = model.model.diffusion_model
    ends = ("to_q", "to_k", "to_v", "to_out.0")
    layers = [name for name, _ in unet.named_modules() if ".attn" in name and name.endswith(ends)]
    assert len(layers) == {"sd15": 128, "sdxl": 560}[kind]
    concepts = [loaded(model, Maker(model, seed)("lora", layers, rank=1)) for seed in (1, 2)]
    adapters = RowAdapters(model, [concept_deltas(model, concept) for concept in concepts])
    width = {"sd15": 768, "sdxl": 2048}[kind]
    x, t = torch.zeros(6, 4, size, size, device="meta"), torch.zeros(6, device="meta")
    y = torch.zeros(6, 2816, device="meta") if kind == "sdxl" else None

    def counted(order):
        with FlopCounterMode(display=False) as counter, adapters.active(unet, order):
            unet(x, t, torch.zeros(6, 77, width, device="meta"), y)
        return counter.get_total_flops()

    extra = counted([2, 2, 1, 1, 0, 0]) - counted([0] * 6)
    assert extra / 4 == pytest.approx(per_rank, rel=5e-3)


def test_the_host_loads_them_with_the_model():
    """As additional models of a MODEL that is sampled, and they serve inside the run."""
    base = tiny_model(seed=1)
    adapters = RowAdapters(base, [concept_deltas(base, loaded(base, Maker(base)("lora")))])
    model = base.clone()
    model.set_additional_models("adapters", adapters.models())

    def around(executor, x, *args, **kwargs):
        assert adapters.models()[0] in [one.model for one in comfy.model_management.current_loaded_models]
        with adapters.active(executor.class_obj, [1] * len(x)):
            return executor(x, *args, **kwargs)

    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "around", around)
    text, negative = (conditioning(torch.randn(1, 7, 32)) for _ in range(2))
    wanted = sample(loaded(base, Maker(base)("lora")), text, negative)
    assert (sample(model, text, negative) - wanted).norm() / wanted.norm() < 1e-4


def test_one_pair_of_products_per_layer(base, monkeypatch):
    """Three concepts cost as many calls as one; ranks far from each other are not padded to the largest."""
    import pack.nodes.row_adapters.layer_products as layer_products

    calls = []
    lowered = layer_products.lowered
    monkeypatch.setattr(layer_products, "lowered", lambda *a: calls.append(a[1].shape) or lowered(*a))

    def with_ranks(*ranks):
        concepts = [loaded(base, Maker(base, seed)("lora", (LINEAR,), rank)) for seed, rank in enumerate(ranks)]
        adapters = RowAdapters(base, [concept_deltas(base, concept) for concept in concepts])
        calls.clear()
        run(base, unet_inputs(4), adapters, [0, *range(1, len(ranks) + 1)][:4] + [0] * (3 - len(ranks)))
        return [tuple(shape[:2]) for shape in calls]

    assert with_ranks(4, 4, 4) == [(3, 4)]
    assert with_ranks(4, 5, 5) == [(3, 5)]
    assert sorted(with_ranks(4, 64, 4)) == [(1, 64), (2, 4)]


NEEDS_WEIGHTS = {
    "DoRA": lambda base: loaded(base, Maker(base)("dora", (LINEAR, CONV3))),
    "oft": lambda base: loaded(base, Maker(base)("oft", (LINEAR,))),
    "set": lambda base: with_patch(base, ("set", (torch.zeros(Maker(base).shapes[f"{LINEAR}.weight"]),))),
    "a blend of weights": lambda base: with_patch(
        base, (torch.zeros(Maker(base).shapes[f"{LINEAR}.weight"]),), strength_model=0.5
    ),
}


def with_patch(base, value, **strengths):
    model = base.clone()
    assert model.add_patches({f"diffusion_model.{LINEAR}.weight": value}, **strengths)
    return model


@pytest.mark.parametrize("reason", NEEDS_WEIGHTS)
def test_needs_a_forward_of_its_own(base, reason, caplog):
    own = loaded(NEEDS_WEIGHTS[reason](base), Maker(base, 5)("lora", (CONV1,)))
    deltas = concept_deltas(base, own)
    assert deltas.needs_own_forward == (reason,)
    assert caplog.text.count("forward pass of its own") == 1
    with pytest.raises(ValueError, match="path 1 cannot share a batch"):
        RowAdapters(base, [deltas])
    inputs = unet_inputs(1)
    assert torch.equal(run(deltas.own_model(base), inputs), run(own, inputs))


def test_own_forward_keeps_what_the_base_has(base):
    style, own = Maker(base, 1)("lora"), Maker(base, 2)("dora", (LINEAR,))
    deltas = concept_deltas(loaded(base, style), loaded(base, own))
    inputs = unet_inputs(1)
    assert torch.equal(
        run(deltas.own_model(loaded(base, style)), inputs), run(loaded(loaded(base, style), own), inputs)
    )


def test_a_strength_of_nothing_needs_nothing(base):
    assert not concept_deltas(base, loaded(base, Maker(base)("dora", (LINEAR,)), 0.0))


def test_a_blend_that_adds_nothing_still_scales_the_weight(base):
    """The host's patch 0 * value + 0.5 * weight: it is no adapter, and it is not nothing."""
    concept = base.clone()
    key = f"diffusion_model.{LINEAR}.weight"
    value = torch.zeros(Maker(base).shapes[f"{LINEAR}.weight"])
    assert concept.add_patches({key: (value,)}, 0.0, 0.5) == [key]
    assert concept_deltas(base, concept).needs_own_forward == ("a blend of weights",)


def test_norms_and_biases(base):
    shapes = Maker(base).shapes
    maker = Maker(base, 1)
    patches = {
        f"diffusion_model.{name}": (maker.random(*shapes[name]),)
        for name in shapes
        if "norm" in name or name.startswith(("output_blocks.4.0.in_layers", "output_blocks.4.0.emb_layers"))
    }
    concept = base.clone()
    assert len(concept.add_patches(patches, 0.3)) == len(patches) > 100
    check(base, [concept], [0, 1, 0])
    check(base, [concept, loaded(concept, Maker(base)("lora"))], [2, 1, 0])


def test_a_patch_that_does_not_fit_is_left_out_as_in_the_host(base, caplog):
    file = Maker(base)("lora", (LINEAR,)) | Maker(base)("lora", (CONV3,))
    file[f"diffusion_model.{CONV3}.lora_up.weight"] = torch.zeros(7, 4, 1, 1)
    concept = loaded(base, file)
    check(base, [concept], [0, 1])
    assert f"does not fit diffusion_model.{CONV3}.weight" in caplog.text


def test_another_checkpoint(base):
    twin = tiny_model(seed=1)
    assert concept_deltas(base, loaded(twin, Maker(base)("lora"))).needs_own_forward == ("another checkpoint",)
    # two other checkpoints without patches are not one
    assert concept_deltas(base, twin) == concept_deltas(base, twin.clone())
    assert concept_deltas(base, twin) != concept_deltas(base, tiny_model(seed=2))
    with pytest.raises(
        ValueError, match="the concept's model is a different one .*load the concept's LoRA on the same"
    ):
        concept_deltas(base, tiny_model("sdxl"))


def test_the_host_loads_the_adapters(base):
    adapters = RowAdapters(base, [concept_deltas(base, loaded(base, Maker(base)("lora", rank=4)))])
    shapes = [Maker(base).shapes[f"{layer}.weight"] for layer in LAYERS]
    (patcher,) = adapters.models()
    assert patcher.model_size() == 4 * sum(4 * (s[0] + torch.Size(s[1:]).numel()) for s in shapes)
    assert patcher.load_device == base.load_device
    assert RowAdapters(base, [concept_deltas(base, base)]).models() == []


def test_rows_cut_into_tiles(base):
    """HyperTile makes more rows of the same pictures before a layer."""
    adapters = RowAdapters(base, [concept_deltas(base, loaded(base, Maker(base)("lora", (LINEAR,))))])
    layer = dict(base.model.diffusion_model.named_modules())[LINEAR]
    x = torch.randn(3, 8, layer.in_features)
    with adapters.active(base.model.diffusion_model, [1, 0, 1]):
        whole, tiled = layer(x), layer(x.reshape(12, 2, -1))
        odd, first = layer(x.repeat(2, 1, 1)[:5]), layer(x[:2])
    assert torch.allclose(tiled.reshape(whole.shape), whole, atol=1e-6)
    # as many as are no multiple: left alone; the first rows alone: as they were
    assert torch.equal(odd, layer(x.repeat(2, 1, 1)[:5]))
    assert torch.allclose(first, whole[:2], atol=1e-6) and not torch.allclose(first[0], layer(x)[0])


def test_sdxl():
    base = tiny_model("sdxl", seed=1)
    layers = [name for name, _ in base.model.diffusion_model.named_modules() if name.endswith(("to_q", "proj_in"))]
    concepts = [loaded(base, Maker(base, seed)("lora", layers, rank)) for seed, rank in ((1, 4), (2, 8))]
    check(base, concepts, [2, 0, 1, 1], inputs=unet_inputs(4, kind="sdxl"))


@pytest.mark.parametrize(
    ("weights", "adapters"), [(torch.float8_e4m3fn, torch.float16), (torch.bfloat16, torch.bfloat16)], ids=str
)
def test_adapters_are_not_rounded_to_eight_bits(weights, adapters, monkeypatch):
    model = tiny_model()
    monkeypatch.setattr(model.model, "manual_cast_dtype", None)
    monkeypatch.setattr(model.model, "get_dtype", lambda: weights)
    deltas = concept_deltas(model, loaded(model, Maker(model)("lora")))
    (patcher,) = RowAdapters(model, [deltas]).models()
    assert {parameter.dtype for parameter in patcher.model.parameters()} == {adapters}

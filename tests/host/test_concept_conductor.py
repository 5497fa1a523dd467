"""Concept Conductor by property: off is nothing, one batch is as many, and every size, dtype, batch and sampler works."""

import comfy.model_management as mm
import pytest
import torch
from concepts import conducted, random_concepts, random_lora, strip, with_lora
from subjects import draw, prompt
from tiny import execute, recording, sample, tiny_model

from pack.nodes.concepts import AddConcept
from pack.nodes.host import concept_conductor, layout_guidance


@pytest.fixture(scope="module")
def model():
    return tiny_model("sd15")


def differ(a, b):
    """Largest difference, as a part of the largest value."""
    return float((a - b).abs().max() / b.abs().max())


def picture(model, **kwargs):
    return sample(model, prompt(model, 100), prompt(model, 200), **kwargs)


def forwards(model):
    """A list that fills with the number of rows of each pass through the UNet."""
    rows = []
    model.model.diffusion_model.time_embed.register_forward_hook(lambda layer, args, out: rows.append(len(out)))
    return rows


def small_memory(monkeypatch):
    """The host has as much memory as one row needs, whatever is asked."""
    monkeypatch.setattr(mm, "get_free_memory", lambda *args, **kwargs: 1.0)


# off is nothing


@pytest.mark.parametrize("chain", [(), None, "off"])
def test_off_is_bit_equal(model, chain):
    chain = random_concepts(model, 2, strength=[0.0, 0.0]) if chain == "off" else chain
    patched = execute_conductor(model, chain)
    assert patched is model


def execute_conductor(model, chain):
    from pack.nodes.concept_conductor import ConceptConductor

    return execute(ConceptConductor, model=model, concepts=chain)[0]


def test_a_concept_of_strength_0_is_left_out(model):
    both = random_concepts(model, 2, strength=[1.0, 0.0])
    assert torch.equal(picture(conducted(model, both)), picture(conducted(model, both[:1])))


def test_outside_the_masks_only_what_the_masks_pass_on_changes(model):
    """A mask over everything gives the concept's own decoder; it is no longer the main prompt's picture."""
    bare = picture(model)
    assert differ(picture(conducted(model)), bare) > 1e-2


def test_the_model_and_its_weights_stay_as_they_were(model):
    before = {key: weight.clone() for key, weight in model.model.diffusion_model.state_dict().items()}
    bare = picture(model)
    patched = conducted(model, layout=True)
    one = picture(patched)
    assert torch.equal(picture(model), bare)
    assert torch.equal(picture(patched), one)
    for key, weight in model.model.diffusion_model.state_dict().items():
        assert torch.equal(weight, before[key]), key


# one batch, or many


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_path_by_path_is_as_together(kind, monkeypatch):
    model = tiny_model(kind)
    # a small pull: the random UNet multiplies what differs by rounding
    patched = conducted(model, random_concepts(model, 3), layout=True, guidance_weight=0.1)
    rows = forwards(model)
    together = picture(patched)
    assert max(rows) == 8
    rows.clear()
    small_memory(monkeypatch)
    apart = picture(patched)
    assert max(rows) == 1
    assert differ(apart, together) < 1e-3


def test_gradient_falls_back_when_memory_runs_out(model, monkeypatch):
    patched = conducted(model, layout=True, guidance_weight=0.1)
    together = picture(patched, steps=1)
    real, failed = layout_guidance.run_to, []

    def run_to(block, unet, inputs, options):
        if len(inputs[0]) > 1 and torch.is_grad_enabled():
            failed.append(len(inputs[0]))
            raise mm.OOM_EXCEPTION("out of memory")
        return real(block, unet, inputs, options)

    monkeypatch.setattr(layout_guidance, "run_to", run_to)
    assert differ(picture(patched, steps=1), together) < 1e-4
    assert failed == [3]


def test_concepts_run_ahead_where_other_patches_stand(model):
    """A patch that changes nothing puts the concepts into a pass of their own, with the same result."""
    patched = conducted(model, random_concepts(model, 2))
    other = patched.clone()
    seen = []
    other.set_model_attn1_output_patch(lambda n, options: (seen.append(len(n)), n)[1])
    assert differ(picture(other), picture(patched)) < 1e-4
    # it sees the picture's rows and no others
    assert set(seen) == {2}


def test_other_wrappers_see_the_pictures_rows_alone(model):
    patched, recorder = recording(conducted(model))
    picture(patched)
    assert [len(call.x) for call in recorder.calls] == [2] * 3


def test_prompts_of_other_lengths(model):
    """14 tokens can be batched with 7, 11 cannot; both give what they give alone."""
    masks = [strip(0, 2), strip(1, 2)]
    for tokens, passes in ((14, 1), (11, 3)):
        chain = random_concepts(model, 1) + random_concepts(model, 1, tokens=tokens)
        chain = tuple(type(c)(c.model, c.positive, c.word, c.strength, c.negative, m[0]) for c, m in zip(chain, masks))
        rows = forwards(model)
        out = picture(conducted(model, chain), steps=1)
        assert len(rows) == passes and torch.isfinite(out).all()


def test_equal_concepts_share_a_path(model):
    lora = random_lora(model, 0)
    chain = ()
    for number in range(3):
        # the same LoRA loaded anew each time, the same prompt encoded anew
        (chain,) = execute(
            AddConcept,
            model=with_lora(model, {k: v.clone() for k, v in lora.items()}, 1.0),
            positive=prompt(model, 300),
            mask=strip(number, 4),
            concepts=chain,
        )
    rows = forwards(model)
    one = picture(conducted(model, chain), steps=1)
    assert rows == [4]
    joined = chain[0].__class__(chain[0].model, chain[0].positive, mask=torch.stack([c.mask for c in chain]).amax(0))
    # strips at the edges of tokens: their union is the union of their tokens
    assert differ(picture(conducted(model, (joined,)), steps=1), one) < 1e-5


def test_rows_end_behind_the_last_attention():
    """SDXL's last level has no attention: there only the picture's rows are left."""
    model = tiny_model("sdxl")
    rows = []
    model.model.diffusion_model.output_blocks[-1][0].register_forward_hook(lambda *args: rows.append(len(args[2])))
    picture(conducted(model), steps=1)
    assert rows == [2]
    assert not any(m._forward_pre_hooks for m in model.model.diffusion_model.modules())


# sizes, batches, dtypes, samplers


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
@pytest.mark.parametrize("size", [(9, 13), (8, 24), (15, 11)])
def test_odd_sizes(kind, size):
    model = tiny_model(kind)
    chain = random_concepts(model, 2, size=(8 * size[0], 8 * size[1]))
    patched = conducted(model, chain, layout=True, size=size, guidance_weight=0.1, refine_start=0.0, refine_end=1.0)
    out = picture(patched, latent=(1, 4, *size))
    assert torch.isfinite(out).all()
    assert differ(out, picture(model, latent=(1, 4, *size))) > 1e-3


def test_each_image_of_a_batch_is_as_alone(model):
    patched = conducted(
        model, layout=True, guidance_weight=0.1, refine_start=0.0, refine_end=1.0, kmeans_restarts=20
    )
    noise = draw(2, 4, 8, 8)
    together = sample(patched, prompt(model, 100), prompt(model, 200), latent=(2, 4, 8, 8), noise=noise, steps=2)
    for row in range(2):
        alone = sample(patched, prompt(model, 100), prompt(model, 200), noise=noise[row : row + 1], steps=2)
        assert differ(together[row], alone[0]) < 1e-3


def test_cfg_1_leaves_out_unconditional_rows(model):
    patched = conducted(model)
    rows = forwards(model)
    guided, recorder = recording(patched)
    picture(guided, steps=1)
    alone, of_one = recording(patched)
    picture(alone, steps=1, cfg=1.0)
    assert rows == [6, 3]
    assert differ(of_one.calls[0].cond, recorder.calls[0].cond) < 1e-5


def test_halves_in_separate_calls_are_as_together(model):
    patched = conducted(model)
    together = picture(patched)

    def split(executor, base, conds, *args):
        return [
            executor(base, [c if i == j else None for j, c in enumerate(conds)], *args)[i] for i in range(len(conds))
        ]

    apart = patched.clone()
    apart.add_wrapper_with_key("calc_cond_batch", "split", split)
    assert differ(picture(apart), together) < 1e-4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_half_precision(kind, dtype):
    """In half precision the conducted UNet errs at most three times as much as the bare one."""
    errors = {}
    for name in ("bare", "conducted"):
        outputs = []
        for d in (torch.float32, dtype):
            model = tiny_model(kind, dtype=d)
            model, calls = recording(model if name == "bare" else conducted(model))
            picture(model, steps=1)
            outputs.append(calls.calls[0].cond.double())
        assert outputs[1].isfinite().all()
        errors[name] = float((outputs[1] - outputs[0]).norm() / outputs[0].norm())
    assert errors["conducted"] < 3 * errors["bare"]


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float16, 0.99), (torch.bfloat16, 0.9)], ids=["half", "bfloat16"])
def test_the_gradient_survives_half_precision(dtype, limit, monkeypatch):
    gradients = []
    real = layout_guidance.LayoutGuidance.shift
    monkeypatch.setattr(
        layout_guidance.LayoutGuidance, "shift", lambda self, step: (gradients.append(real(self, step)), gradients[-1])[1]
    )
    for d in (torch.float32, dtype):
        model = tiny_model("sd15", dtype=d)
        # a gradient far too small for half precision, were it not scaled
        patched = conducted(model, layout=True, guidance_weight=1e-6)
        picture(patched, steps=1)
    one, other = (g.double().flatten() for g in gradients)
    assert float(torch.dot(one, other) / one.norm() / other.norm()) > limit
    assert 0.9 < float(one.norm() / other.norm()) < 1.1


@pytest.mark.parametrize("sampler", ["heun", "dpm_2", "euler_ancestral", "dpmpp_2m", "lcm", "uni_pc", "ddim"])
def test_samplers(model, sampler):
    out = picture(conducted(model, layout=True, guidance_weight=0.1), sampler=sampler, steps=4)
    assert torch.isfinite(out).all()


# when


class Steps:
    """Which steps are guided and which refined, without doing either."""

    def __init__(self, monkeypatch):
        self.guided, self.refined = [], []
        monkeypatch.setattr(
            layout_guidance.LayoutGuidance,
            "_gradient",
            lambda guidance, step: (self.guided.append(step.moment.step), torch.zeros_like(step.x))[1],
        )

        def refine(masks, step, *rest):
            self.refined.append(step)
            masks._step = step

        monkeypatch.setattr(concept_conductor.ConceptMasks, "refine", refine)


def schedule(steps):
    return torch.cat([torch.linspace(10, 1, steps), torch.zeros(1)])


@pytest.mark.parametrize(
    ("steps", "guided", "refined"),
    [
        (200, list(range(61)), list(range(50, 81, 5))),
        (30, list(range(10)), list(range(8, 13))),
        (20, list(range(7)), list(range(5, 9))),
    ],
)
def test_windows_are_fractions_of_the_steps(steps, guided, refined, monkeypatch):
    model = tiny_model("sd15")
    seen = Steps(monkeypatch)
    patched = conducted(model, random_concepts(model, 1), layout=True, refine_start=0.25, refine_end=0.40)
    picture(patched, sigmas=schedule(steps))
    assert (seen.guided, seen.refined) == (guided, refined)


def test_guidance_interval(model, monkeypatch):
    seen = Steps(monkeypatch)
    picture(conducted(model, layout=True, guidance_interval=3, guidance_end=1.0), sigmas=schedule(8))
    assert seen.guided == [0, 3, 6]


def test_refined_masks_hold_from_the_next_step_on(model):
    """The step that refines sees the old masks, also where it evaluates twice."""
    plain, plain_calls = recording(conducted(model))
    picture(plain, sigmas=schedule(3))
    refined, calls = recording(conducted(model, refine_start=0.3, refine_end=0.34, rect_mask=False))
    picture(refined, sigmas=schedule(3))
    for step in (0, 1):
        assert torch.equal(calls.calls[step].cond, plain_calls.calls[step].cond) or (
            differ(calls.calls[step].cond, plain_calls.calls[step].cond) < 1e-5
        )
    assert differ(calls.calls[2].cond, plain_calls.calls[2].cond) > 1e-3


def test_no_factor_no_concepts_in_the_gradient(model):
    """custom_factor 0 leaves the gradient to the picture's own rows, and costs theirs alone."""
    patched = conducted(model, layout=True, guidance_weight=0.1, custom_factor=0.0, guidance_end=0.0)
    rows = forwards(model)
    picture(patched, steps=1)
    # the inversion, the layout picture's keys, the gradient, the step
    assert rows == [1, 1, 1, 6]

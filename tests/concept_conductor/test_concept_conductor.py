"""Concept Conductor by property: off is nothing, one batch is as many, every size, dtype, batch and sampler works."""

from dataclasses import replace
from types import SimpleNamespace

import comfy.model_management as mm
import pytest
import torch
from comfy.model_base import ModelType
from support.compare import differ
from support.concepts import conducted, random_concepts, random_lora, strip, with_lora
from support.models import execute, recording, sample, tiny_model
from support.references import draw, prompt
from support.thorough import few_of

from pack.nodes.concept_conductor import concept_conductor, layout_steps
from pack.nodes.concept_conductor.concepts_node import AddConcept
from pack.nodes.host.attach import techniques_of
from pack.nodes.host.run import Run, call_of, step_of
from pack.nodes.host.run_records import latest_record
from pack.nodes.inversion import kept_inversions

# The random UNets multiply what differs by rounding a thousandfold: where two ways must give the same, they compute in
# double precision, and only rounding of that is allowed.
EXACT = 1e-10


@pytest.fixture(scope="module")
def model():
    return tiny_model("sd15")


@pytest.fixture(scope="module")
def exact_model():
    return tiny_model("sd15", dtype=torch.float64)


def picture(model, positive=None, **kwargs):
    return sample(model, positive or prompt(model, 100), prompt(model, 200), **kwargs)


def evaluation(model, **kwargs):
    """What the UNet gives in the first step: the conditional rows, then the others."""
    model, recorder = recording(model)
    picture(model, steps=1, **kwargs)
    halves = [getattr(call, half) for half in ("cond", "uncond") for call in recorder.calls]
    return torch.cat([rows for rows in halves if rows is not None])


def forwards(model):
    """A list that fills with the number of rows of each pass through the UNet."""
    rows = []
    model.model.diffusion_model.time_embed.register_forward_hook(lambda layer, args, out: rows.append(len(out)))
    return rows


def small_memory(model, monkeypatch):
    """Two rows are more than what memory has room for."""
    monkeypatch.setattr(model.model, "memory_required", lambda *args, **kwargs: 1e18)


# off is nothing


@pytest.mark.parametrize("chain", [(), None, "off"])
def test_off_is_bit_equal(model, chain):
    chain = random_concepts(model, 2, strength=[0.0, 0.0]) if chain == "off" else chain
    patched = execute_conductor(model, chain)
    assert patched is model


def execute_conductor(model, chain):
    from pack.nodes.concept_conductor.concept_conductor_node import ConceptConductor

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
    model = tiny_model(kind, dtype=torch.float64)
    patched = conducted(model, random_concepts(model, 3))
    rows = forwards(model)
    together = evaluation(patched)
    assert rows == [8]
    rows.clear()
    small_memory(model, monkeypatch)
    apart = evaluation(patched)
    # each concept, then the picture, for each half of CFG
    assert rows == [1] * 8
    assert differ(apart, together) < EXACT


@pytest.mark.parametrize(("share", "passes"), [(0.5, [8]), (0.8, [1] * 8)])
def test_memory_is_asked_for_as_the_host_does(model, share, passes, monkeypatch):
    """One and a half times what the model says must be free."""
    patched = conducted(model, random_concepts(model, 3))
    free = lambda *args, **kwargs: share * mm.get_free_memory(torch.device("cpu"))  # noqa: E731
    monkeypatch.setattr(model.model, "memory_required", free)
    rows = forwards(model)
    evaluation(patched)
    assert rows == passes


def test_gradient_path_by_path_is_as_together(exact_model, monkeypatch):
    model = exact_model
    patched = conducted(model, random_concepts(model, 3), layout=True)
    together = shifts(monkeypatch, patched)
    small_memory(model, monkeypatch)
    rows = forwards(model)
    apart = shifts(monkeypatch, patched)
    assert max(rows) == 1
    assert differ(apart[0], together[0]) < 1e-6


def shifts(monkeypatch, model, **kwargs):
    """How the latent is moved in each guided step."""
    found = []
    with monkeypatch.context() as patch:
        real = layout_steps.LayoutGuidance.shift
        patch.setattr(layout_steps.LayoutGuidance, "shift", lambda *args: (found.append(real(*args)), found[-1])[1])
        picture(model, steps=1, **kwargs)
    return [shift for shift in found if shift is not None]


def test_guidance_reads_the_prompt_that_acts(exact_model, monkeypatch):
    """Of prompts that take turns, the one whose turn it is, wherever it stands in the list."""
    patched = conducted(exact_model, layout=True)
    late, early = (
        [[prompt(exact_model, seed)[0][0], {"start_percent": start, "end_percent": end}]]
        for seed, start, end in ((300, 0.5, 1.0), (100, 0.0, 0.5))
    )
    (turns,), (alone,) = (shifts(monkeypatch, patched, positive=list_) for list_ in ([*late, *early], None))
    assert differ(turns, alone) < 1e-6
    (other,) = shifts(monkeypatch, patched, positive=prompt(exact_model, 300))
    assert differ(other, alone) > 1e-2


def test_tokens_under_several_masks_count_several_times(exact_model, monkeypatch):
    """The loss mask is the sum of the masks: two alike pull twice as hard as one, where only the main prompt pulls."""
    settings = {"layout": True, "use_loss_mask": True, "custom_factor": 0.0}
    twice = random_concepts(exact_model, 2, mask=[strip(0, 2)] * 2)
    (double,), (single,) = (
        shifts(monkeypatch, conducted(exact_model, chain, **settings)) for chain in (twice, twice[:1])
    )
    assert differ(double, 2 * single) < 1e-6


def test_gradient_falls_back_when_memory_runs_out(exact_model, monkeypatch):
    patched = conducted(exact_model, layout=True)
    together = shifts(monkeypatch, patched)
    real, failed = layout_steps.run_to, []

    def run_to(block, unet, inputs, options):
        if len(inputs[0]) > 1 and torch.is_grad_enabled():
            failed.append(len(inputs[0]))
            raise mm.OOM_EXCEPTION("out of memory")
        return real(block, unet, inputs, options)

    monkeypatch.setattr(layout_steps, "run_to", run_to)
    assert differ(shifts(monkeypatch, patched)[0], together[0]) < 1e-6
    assert failed == [3]


def test_concepts_run_ahead_where_other_patches_stand(exact_model):
    """A patch that changes nothing puts the concepts into a pass of their own, with the same result."""
    patched = conducted(exact_model)
    other = patched.clone()
    seen = []
    other.set_model_attn1_output_patch(lambda n, options: (seen.append(len(n)), n)[1])
    assert differ(evaluation(other), evaluation(patched)) < EXACT
    # it sees the picture's rows and no others
    assert set(seen) == {2}


def test_other_wrappers_see_the_pictures_rows_alone(model):
    patched, recorder = recording(conducted(model))
    picture(patched)
    assert [len(call.x) for call in recorder.calls] == [2] * 3


@pytest.mark.parametrize(("tokens", "passes"), [(14, [6]), (11, [2, 2, 2])])
def test_prompts_of_other_lengths(tokens, passes, monkeypatch):
    """14 tokens can be batched with 7, 11 cannot; both give what they give alone."""
    model = tiny_model("sd15", dtype=torch.float64)
    chain = random_concepts(model, 1) + random_concepts(model, 1, tokens=tokens)
    chain = tuple(replace(concept, mask=strip(number, 2)[0]) for number, concept in enumerate(chain))
    patched = conducted(model, chain)
    rows = forwards(model)
    together = evaluation(patched)
    assert rows == passes
    rows.clear()
    small_memory(model, monkeypatch)
    alone = evaluation(patched)
    assert rows == [1] * 6
    assert differ(together, alone) < EXACT


def test_memory_of_the_concepts_is_announced(model):
    """A row of each path beside each picture, before memory is given out."""
    shapes = []
    patched = conducted(model, random_concepts(model, 3)).clone()
    patched.add_wrapper_with_key(
        "prepare_sampling",
        "look",
        lambda executor, m, shape, *a, **k: (shapes.append(list(shape)), executor(m, shape, *a, **k))[1],
    )
    picture(patched, steps=1, latent=(2, 4, 8, 8))
    assert shapes == [[8, 4, 8, 8]]


def test_equal_concepts_share_a_path(exact_model, monkeypatch):
    model = exact_model
    lora = random_lora(model, 0)
    chain = ()
    for number in range(2):
        # the same LoRA loaded anew each time, the same prompt encoded anew
        (chain,) = execute(
            AddConcept,
            model=with_lora(model, {k: v.clone() for k, v in lora.items()}, 1.0),
            positive=prompt(model, 300),
            mask=strip(number, 2),
            concepts=chain,
        )
    rows = forwards(model)
    one = evaluation(conducted(model, chain))
    assert rows == [4]
    joined = chain[0].__class__(chain[0].model, chain[0].positive, mask=torch.stack([c.mask for c in chain]).amax(0))
    # halves: their union is the union of their tokens at all levels
    assert differ(evaluation(conducted(model, (joined,))), one) < EXACT
    # ahead of the picture too, where only the tokens under their masks are kept
    small_memory(model, monkeypatch)
    rows.clear()
    assert differ(evaluation(conducted(model, chain)), one) < EXACT
    assert rows == [1] * 4


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
@pytest.mark.parametrize("size", few_of([(9, 13), (8, 24), (15, 11)], (9, 13)))
def test_odd_sizes(kind, size):
    model = tiny_model(kind)
    chain = random_concepts(model, 2, size=(8 * size[0], 8 * size[1]))
    patched = conducted(model, chain, layout=True, size=size, guidance_weight=0.1, refine_start=0.0, refine_end=1.0)
    out = picture(patched, latent=(1, 4, *size))
    assert torch.isfinite(out).all()
    assert differ(out, picture(model, latent=(1, 4, *size))) > 1e-3


def test_each_image_of_a_batch_is_as_alone(exact_model):
    model = exact_model
    patched = conducted(model, refine_start=0.0, refine_end=1.0, kmeans_restarts=20)
    noise = draw(2, 4, 8, 8)
    together = picture(patched, latent=(2, 4, 8, 8), noise=noise)
    masks = latest_record(techniques_of(patched)[0]).end
    assert masks.shape == (2, 2, 8, 8) and not torch.equal(masks[:, 0], masks[:, 1])
    for row in range(2):
        alone = picture(patched, noise=noise[row : row + 1])
        # the sampler's own latents are in single precision
        assert differ(together[row], alone[0]) < 1e-5
        assert torch.equal(latest_record(techniques_of(patched)[0]).end[:, 0], masks[:, row])


def test_the_gradient_of_an_image_is_the_same_in_a_batch(exact_model, monkeypatch):
    patched = conducted(exact_model, layout=True)
    noise = draw(2, 4, 8, 8)
    (together,) = shifts(monkeypatch, patched, latent=(2, 4, 8, 8), noise=noise)
    for row in range(2):
        (alone,) = shifts(monkeypatch, patched, noise=noise[row : row + 1])
        assert differ(together[row], alone[0]) < 1e-6


def test_cfg_1_leaves_out_unconditional_rows(exact_model):
    patched = conducted(exact_model)
    rows = forwards(exact_model)
    both, alone = evaluation(patched), evaluation(patched, cfg=1.0)
    assert rows == [6, 3]
    assert differ(alone, both[:1]) < EXACT


def test_halves_in_separate_calls_are_as_together(exact_model):
    patched = conducted(exact_model)
    together = evaluation(patched)

    def split(executor, base, conds, *args):
        return [
            executor(base, [c if i == j else None for j, c in enumerate(conds)], *args)[i] for i in range(len(conds))
        ]

    apart = patched.clone()
    apart.add_wrapper_with_key("calc_cond_batch", "split", split)
    assert differ(evaluation(apart), together) < EXACT


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float16, 0.05), (torch.bfloat16, 0.4)], ids=["half", "bfloat16"])
@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_half_precision(kind, dtype, limit):
    """No more is lost than such a UNet loses by itself under such LoRAs."""
    single, half = (evaluation(conducted(tiny_model(kind, dtype=d))).double() for d in (torch.float32, dtype))
    assert half.isfinite().all()
    assert float((half - single).norm() / single.norm()) < limit


@pytest.mark.parametrize(
    "sampler",
    few_of(["heun", "dpm_2", "euler_ancestral", "dpmpp_2m", "lcm", "uni_pc", "ddim"], "euler_ancestral", "dpmpp_2m"),
)
def test_samplers(exact_model, sampler):
    """Whatever a sampler asks for, each evaluation is what it is in a run that begins there; and guidance moves it."""
    model = exact_model
    patched, calls = recording(conducted(model, layout=True, guidance_weight=0.1))
    out = picture(patched, sampler=sampler, steps=4)
    assert len(calls.calls) >= 4
    alone, one = recording(conducted(model))
    for call in calls.calls:
        one.calls.clear()
        # what the UNet was given, as the noise of a run that begins at this level: the host multiplies noise by sigma,
        # at the highest level by sqrt(1 + sigma^2), and the UNet is given that divided by sqrt(1 + sigma^2)
        at_highest = call.sigma > 0.999 * float(model.get_model_object("model_sampling").sigma_max)
        noise = call.x[:1] if at_highest else call.x[:1] * (1 + call.sigma**2) ** 0.5 / call.sigma
        picture(alone, noise=noise, sigmas=torch.tensor([call.sigma, 0.0]))
        assert differ(call.cond, one.calls[0].cond) < 1e-3 and differ(call.uncond, one.calls[0].uncond) < 1e-3
    moved = differ(out, picture(conducted(model), sampler=sampler, steps=4))
    # uni_pc shows a copy of its latent, which cannot be moved
    assert moved == 0 if sampler == "uni_pc" else moved > 1e-2


# when


class Steps:
    """Which steps are guided and which refined, without doing either."""

    def __init__(self, monkeypatch):
        self.guided, self.refined = [], []
        monkeypatch.setattr(
            layout_steps.LayoutGuidance,
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


def test_windows_of_the_published_200_steps(model):
    """61 guided steps, and a refinement in every fifth step from 50 to 80."""
    patched = conducted(model, random_concepts(model, 1), layout=True, refine_start=0.25, refine_end=0.40)
    (technique,) = techniques_of(patched)
    levels = schedule(200)
    run = Run(SimpleNamespace(conds={}, model_patcher=patched), (1, 4, 8, 8))
    technique.begin(run)
    conducting = run.state(technique.name, lambda: None)
    guided, refined = [], []
    for number, sigma in enumerate(levels[:-1]):
        said = {"sample_sigmas": levels, "sigmas": sigma[None], "cond_or_uncond": [1, 0]}
        if conducting.guidance.steps.due(step_of(run, model.model, draw(1, 4, 8, 8), sigma[None], said)):
            guided.append(number)
        if conducting.refines(call_of(run, model.model, None, draw(2, 4, 8, 8), None, None, None, said)):
            refined.append(number)
    assert guided == list(range(61)) and refined == list(range(50, 81, 5))


@pytest.mark.parametrize(
    "sampler", few_of(["euler", "heun", "dpm_2", "dpmpp_2s_ancestral", "dpmpp_sde", "lms", "lcm"], "euler", "dpmpp_sde")
)
def test_each_step_is_guided_once(model, sampler, monkeypatch):
    """Also where a sampler evaluates twice: heun looks at the next step's noise level before that step begins."""
    seen = Steps(monkeypatch)
    picture(conducted(model, layout=True, guidance_end=1.0), sampler=sampler, steps=4)
    assert seen.guided == [0, 1, 2, 3]


def test_guidance_interval(model, monkeypatch):
    seen = Steps(monkeypatch)
    picture(conducted(model, layout=True, guidance_interval=3, guidance_end=1.0), sigmas=schedule(8))
    assert seen.guided == [0, 3, 6]


@pytest.mark.parametrize(("sampler", "evaluations"), [("euler", 1), ("dpm_2", 2)])
def test_refined_masks_hold_from_the_next_step_on(exact_model, sampler, evaluations):
    """The step that refines sees the old masks, also where it evaluates twice."""
    model = exact_model
    plain, plain_calls = recording(conducted(model))
    picture(plain, sampler=sampler, sigmas=schedule(3))
    refined, calls = recording(conducted(model, refine_start=0.3, refine_end=0.34, rect_mask=False))
    picture(refined, sampler=sampler, sigmas=schedule(3))
    changes = [differ(one.cond, other.cond) for one, other in zip(calls.calls, plain_calls.calls, strict=True)]
    # step 1 of the steps 0, 1, 2 refines
    assert max(changes[: 2 * evaluations]) < EXACT
    assert changes[2 * evaluations] > 1e-3


def test_no_factor_no_concepts_in_the_gradient(model):
    """custom_factor 0 leaves the gradient to the picture's own rows, and costs theirs alone."""
    patched = conducted(model, layout=True, guidance_weight=0.1, custom_factor=0.0, guidance_end=0.0)
    rows = forwards(model)
    picture(patched, steps=1)
    # the inversion, the layout picture's keys, the gradient, the step
    assert rows == [1, 1, 1, 6]


@pytest.mark.parametrize("sampler", ["uni_pc", "uni_pc_bh2"])
def test_samplers_whose_latent_cannot_be_moved(model, sampler, caplog):
    """They show the model a copy: guidance is off there, and that is said."""
    without = picture(conducted(model), sampler=sampler)
    assert torch.equal(picture(conducted(model, layout=True), sampler=sampler), without)
    assert "layout guidance is off" in caplog.text


def test_a_prompt_of_several_rows_goes_round_the_pictures(model):
    rows = [prompt(model, 300 + i)[0][0] for i in range(2)]
    chain = random_concepts(model, 1, positive=[[[torch.cat(rows), {}]]])
    ours = picture(conducted(model, chain), latent=(2, 4, 8, 8), steps=1, cfg=1.0)
    for i, row in enumerate(rows):
        alone = random_concepts(model, 1, positive=[[[row, {}]]])
        whole = picture(conducted(model, alone), latent=(2, 4, 8, 8), steps=1, cfg=1.0)
        assert differ(ours[i], whole[i]) < 1e-4
    assert torch.isfinite(picture(conducted(model, chain), steps=1)).all()


def test_guidance_reads_the_layout_at_its_own_level_where_timesteps_are_logarithms(monkeypatch):
    """Models of continuous noise (CosXL, Playground) have timesteps of a quarter of its logarithm, near 0."""
    model = tiny_model("sd15", model_type=ModelType.V_PREDICTION_EDM)
    read, at = [], kept_inversions.Inversion.at

    def watched(inversion, timestep):
        found = at(inversion, timestep)
        read.append((timestep, [torch.equal(found[0], one) for one in inversion.latents].index(True), inversion))
        return found

    monkeypatch.setattr(kept_inversions.Inversion, "at", watched)
    settings = {"layout": True, "guidance_end": 1.0, "guidance_weight": 1e-3, "cache_mb": 0, "inversion_steps": 0}
    picture(conducted(model, **settings), sigmas=torch.tensor([30.0, 8.0, 2.0, 0.5, 0.1, 0.0]))
    # each step of the sampler has a level of its own, from the last of the ascending ones down
    assert [number for _, number, _ in read] == list(range(len(read[0][2].latents)))[::-1][: len(read)]
    assert all(timestep == pytest.approx(inversion.timesteps[number], abs=1e-4) for timestep, number, inversion in read)

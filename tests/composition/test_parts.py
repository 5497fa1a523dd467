"""A run that is sampled in parts is the run sampled at once; a second pass starts nothing anew."""

import comfy.sample
import comfy.samplers
import pytest
import torch
from support.compare import differ
from support.concepts import conducted, random_concepts
from support.models import tiny_model
from support.references import draw, prompt, with_references
from support.thorough import few_of, few_rows_of

from pack.nodes.concept_conductor import concept_conductor, conductor_run, layout_steps
from pack.nodes.host.attach import techniques_of
from pack.nodes.host.run_records import latest_record, record_of

SCHEDULERS = ("normal", "karras", "sgm_uniform")


@pytest.fixture(scope="module")
def model():
    return tiny_model("sd15", dtype=torch.float64)


def noise():
    return torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def advanced(model, latent, steps, start, end, scheduler="normal", sampler="euler", denoise=1.0):
    """As KSampler (Advanced) samples a part: noise in the first one, what is left of it goes on to the next."""
    return comfy.sample.sample(
        model,
        torch.zeros_like(latent) if start else noise(),
        steps,
        5.0,
        sampler,
        scheduler,
        prompt(model, 100),
        prompt(model, 200),
        latent,
        denoise=denoise,
        disable_noise=bool(start),
        start_step=start,
        last_step=end,
        force_full_denoise=end == steps,
        disable_pbar=True,
        seed=0,
    )


def split(model, latent, steps, start, end, scheduler="normal", sampler="euler"):
    """As Split Sigmas and a custom sampler do."""
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), scheduler, steps)
    texts = prompt(model, 100), prompt(model, 200)
    return comfy.sample.sample_custom(
        model,
        torch.zeros_like(latent) if start else noise(),
        5.0,
        comfy.samplers.sampler_object(sampler),
        sigmas[start : end + 1],
        *texts,
        latent,
        disable_pbar=True,
        seed=0,
    )


def at_once(model, part, steps, **kwargs):
    return part(model, torch.zeros(1, 4, 8, 8), steps, 0, steps, **kwargs)


def in_parts(model, part, steps, *ends, **kwargs):
    latent, start = torch.zeros(1, 4, 8, 8), 0
    for end in (*ends, steps):
        latent = part(model, latent, steps, start, end, **kwargs)
        start = end
    return latent


@pytest.mark.parametrize("part", [advanced, split])
@pytest.mark.parametrize("scheduler", few_of(SCHEDULERS, "karras"))
def test_references_have_the_noise_of_the_whole_run(model, part, scheduler):
    patched = with_references(model, cache_mb=0)
    whole = at_once(patched, part, 8, scheduler=scheduler)
    assert differ(in_parts(patched, part, 8, 3, scheduler=scheduler), whole) < 1e-5
    assert differ(in_parts(patched, part, 8, 2, 5, scheduler=scheduler), whole) < 1e-5
    assert differ(at_once(model, part, 8, scheduler=scheduler), whole) > 1e-3


def test_the_bank_serves_another_number_of_steps(model, monkeypatch):
    """Where two schedules meet at a noise level, its references are known."""
    from pack.nodes.reference_attention import entry_reader

    passes = []
    real = entry_reader.caught
    monkeypatch.setattr(entry_reader, "caught", lambda *args: (passes.append(1), real(*args))[1])
    patched = with_references(tiny_model("sd15"))
    sampling = patched.get_model_object("model_sampling")
    eight, four = (comfy.samplers.calculate_sigmas(sampling, "sgm_uniform", steps).tolist() for steps in (8, 4))
    at_once(patched, advanced, 8, scheduler="sgm_uniform")
    passes.clear()
    at_once(patched, advanced, 4, scheduler="sgm_uniform")
    assert len(passes) == len(set(four[:-1]) - set(eight)) < 4


class Acting:
    """The noise levels at which the conductor guides and refines."""

    def __init__(self, monkeypatch):
        self.guided, self.refined = [], []
        enter = concept_conductor.Conductor.enter

        def entered(technique, step):
            self.sigma = step.moment.sigma
            enter(technique, step)

        def gradient(guidance, step):
            self.guided.append(step.moment.sigma)
            return torch.zeros_like(step.x)

        def refine(masks, step, *rest):
            self.refined.append(self.sigma)
            masks._step = step

        monkeypatch.setattr(concept_conductor.Conductor, "enter", entered)
        monkeypatch.setattr(layout_steps.LayoutGuidance, "_gradient", gradient)
        monkeypatch.setattr(concept_conductor.ConceptMasks, "refine", refine)

    def taken(self):
        found = self.guided[:], self.refined[:]
        self.guided.clear()
        self.refined.clear()
        return found


def limits(levels, schedule):
    """(first, last) step of noise levels in a schedule; they follow each other without a gap."""
    numbers = sorted(min(range(len(schedule)), key=lambda i: abs(schedule[i] - level)) for level in levels)
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    return numbers[0], numbers[-1]


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize(
    ("steps", "ends"), few_rows_of([(10, (5,)), (12, (6,)), (12, (2, 4)), (30, (4,)), (30, (8, 20))], (12, (2, 4)))
)
def test_the_conductor_acts_in_the_steps_of_the_whole_run(steps, ends, scheduler, monkeypatch):
    model = tiny_model("sd15")
    patched = conducted(model, random_concepts(model, 1), layout=True, refine_start=0.25, refine_end=0.4)
    schedule = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), scheduler, steps).tolist()
    acting = Acting(monkeypatch)
    at_once(patched, split, steps, scheduler=scheduler)
    whole = acting.taken()
    in_parts(patched, split, steps, *ends, scheduler=scheduler)
    for one, other in zip(acting.taken(), whole, strict=True):
        for edge, expected in zip(limits(one, schedule), limits(other, schedule), strict=True):
            assert abs(edge - expected) <= 1


@pytest.mark.parametrize("part", few_of([advanced, split], split))
def test_masks_go_on_where_the_last_part_ended(model, part):
    patched = conducted(model, refine_start=0.25, refine_end=0.4, kmeans_restarts=20)
    whole = at_once(patched, part, 12)
    masks = latest_record(techniques_of(patched)[0])
    assert not torch.equal(masks.end[:, 0], masks.start)
    # after, within and before the steps that refine
    for ends in ((6,), (4,), (2, 4)):
        assert differ(in_parts(patched, part, 12, *ends), whole) < 1e-5
        assert torch.equal(latest_record(techniques_of(patched)[0]).end, masks.end)


def test_masks_go_on_where_the_host_hands_latents_on_in_half_precision(model):
    """As it does with --fp16-intermediates, behind all that a technique sees."""
    patched = conducted(model, refine_start=0.0, refine_end=0.4, kmeans_restarts=20)
    technique = techniques_of(patched)[0]
    first = advanced(patched, torch.zeros(1, 4, 8, 8), 12, 0, 6)
    masks = latest_record(technique)
    assert not torch.equal(masks.end[:, 0], masks.start) and record_of(technique, first.half()) is masks
    advanced(patched, first.half(), 12, 6, 12)
    assert torch.equal(latest_record(technique).end, masks.end)


@pytest.mark.slow
def test_layout_guidance_in_parts_is_that_of_the_whole_run(model, monkeypatch):
    # an inversion by such a UNet multiplies what its noise levels differ by rounding
    inverted = lambda conducting, step, timestep: draw(1, 4, 8, 8, seed=timestep)  # noqa: E731
    monkeypatch.setattr(conductor_run.Conducting, "layout_latent", inverted)
    patched = conducted(model, layout=True, guidance_weight=0.1)
    whole = at_once(patched, advanced, 12)
    for ends in ((6,), (2,)):
        assert differ(in_parts(patched, advanced, 12, *ends), whole) < 1e-5
    assert differ(at_once(conducted(model), advanced, 12), whole) > 0.1


def test_other_latents_or_another_level_begin_with_the_users_masks(model):
    patched = conducted(model, refine_start=0.0, refine_end=0.4, kmeans_restarts=20)
    technique = techniques_of(patched)[0]
    first = advanced(patched, torch.zeros(1, 4, 8, 8), 12, 0, 6)
    assert not torch.equal(latest_record(technique).end[:, 0], latest_record(technique).start)
    for latent, start in ((first + 1e-3, 6), (first, 8)):
        advanced(patched, latent, 12, start, 12)
        record = latest_record(technique)
        assert torch.equal(record.end[:, 0], record.start)


def test_a_second_pass_at_half_denoise_starts_nothing_anew(model, monkeypatch, caplog):
    patched = conducted(model, layout=True, guidance_weight=0.1, refine_start=0.25, refine_end=0.4)
    first = at_once(patched, advanced, 10)
    acting = Acting(monkeypatch)
    caplog.clear()
    larger = torch.nn.functional.interpolate(first, scale_factor=1.5)
    for latent in (first, larger):
        texts = prompt(model, 100), prompt(model, 200)
        noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(1))
        comfy.sample.sample(patched, noise, 10, 5.0, "uni_pc", "normal", *texts, latent, denoise=0.5, disable_pbar=True)
    assert acting.taken() == ([], []) and "layout" not in caplog.text

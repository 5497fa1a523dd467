"""What a run of Concept Conductor leaves behind: nothing, however it ends."""

import comfy.model_management as mm
import psutil
import pytest
import torch
from support.concepts import conducted, random_concepts
from support.models import recording, sample, tiny_model
from support.references import draw, prompt
from support.thorough import few_rows_of

from pack.nodes.concept_conductor import conductor_run, layout_steps
from pack.nodes.host import attach
from pack.nodes.host.run_records import latest_record


@pytest.fixture
def model():
    return tiny_model("sd15")


def picture(model, **kwargs):
    return sample(model, prompt(model, 100), prompt(model, 200), **kwargs)


def hooks_of(model):
    return [m for m in model.model.diffusion_model.modules() if m._forward_hooks or m._forward_pre_hooks]


def stopped(patched, monkeypatch, where, error):
    """Runs the MODEL with an error raised at a place, and says what is left."""
    with monkeypatch.context() as patch:
        owner, name, after = where
        real, calls = getattr(owner, name), []

        def failing(*args, **kwargs):
            calls.append(1)
            if len(calls) > after:
                raise error
            return real(*args, **kwargs)

        patch.setattr(owner, name, failing)
        with pytest.raises(type(error)):
            picture(patched)
        assert len(calls) > after


PLACES = {
    "gradient pass": (layout_steps, "layout_loss", 0),
    "second gradient": (layout_steps, "layout_loss", 1),
    "refinement": (conductor_run.Conducting, "cluster", 2),
    "layout picture": (conductor_run.Conducting, "layout_latent", 1),
    "fusion": (conductor_run.ConceptMasks, "at", 9),
}


ENDS = [
    *(("sd15", place, mm.InterruptProcessingException()) for place in PLACES),
    ("sd15", "gradient pass", RuntimeError("broken")),
    ("sdxl", "fusion", RuntimeError("broken")),
]


@pytest.mark.parametrize(("kind", "place", "error"), few_rows_of(ENDS, ENDS[1]), ids=str)
def test_an_end_at_any_place_leaves_nothing(kind, place, error, monkeypatch):
    model = tiny_model(kind)
    settings = {"refine_start": 0.0, "refine_end": 1.0, "kmeans_restarts": 5, "guidance_weight": 0.1}
    patched = conducted(model, layout=True, guidance_end=1.0, **settings)
    bare, whole = picture(model), picture(patched)
    weights = {key: weight.clone() for key, weight in model.model.diffusion_model.state_dict().items()}
    options = str(patched.model_options)
    stopped(patched, monkeypatch, PLACES[place], error)
    assert hooks_of(model) == []
    assert str(patched.model_options) == options and attach.RUN not in options
    assert torch.is_inference_mode_enabled() and not torch.is_grad_enabled()
    for key, weight in model.model.diffusion_model.state_dict().items():
        assert torch.equal(weight, weights[key])
    assert torch.equal(picture(model), bare)
    assert torch.equal(picture(patched), whole)


def test_cancel_during_the_gradient_pass(model):
    """As the button does it: the host's own flag, set while the UNet computes."""
    patched = conducted(model, layout=True, cache_mb=0)
    passes = []

    def cancel(layer, args, out):
        passes.append(torch.is_grad_enabled())
        if passes[-1]:
            mm.interrupt_current_processing(True)

    handle = model.model.diffusion_model.time_embed.register_forward_hook(cancel)
    with pytest.raises(mm.InterruptProcessingException):
        picture(patched)
    handle.remove()
    mm.interrupt_current_processing(False)
    assert passes.count(True) == 1 and hooks_of(model) == []


@pytest.mark.slow
def test_fifty_runs_leave_memory_flat(model):
    patched = conducted(
        model, layout=True, guidance_weight=0.1, refine_start=0.0, refine_end=1.0, kmeans_restarts=2, cache_mb=0
    )
    process = psutil.Process()
    for seed in range(15):
        picture(patched, seed=seed, steps=1)
    before = process.memory_info().rss
    for seed in range(50):
        picture(patched, seed=seed, steps=1)
    assert process.memory_info().rss < 1.01 * before


def test_memory_of_the_concepts_is_announced(model):
    shapes = []
    patched = conducted(model, random_concepts(model, 3))
    patched.add_wrapper_with_key(
        "prepare_sampling",
        "look",
        lambda executor, m, shape, *a, **k: (shapes.append(list(shape)), executor(m, shape, *a, **k))[1],
    )
    picture(patched, steps=1, latent=(2, 4, 8, 8))
    assert shapes == [[2 + 3 * 2, 4, 8, 8]]


def test_the_record_is_the_last_run(model):
    patched = conducted(model, refine_start=0.0, refine_end=1.0, kmeans_restarts=5)
    technique = attach.techniques_of(patched)[0]
    assert latest_record(technique) is None
    picture(patched)
    record = latest_record(technique)
    assert record.start.shape == (2, 8, 8) and record.end.shape == (2, 1, 8, 8)
    assert not torch.equal(record.end[:, 0], record.start)
    picture(patched.clone(), latent=(2, 4, 8, 16))
    record = latest_record(technique)
    assert record.start.shape == (2, 8, 16) and record.end.shape == (2, 2, 8, 16)
    assert record.end.device.type == "cpu"


@pytest.mark.slow
def test_a_noise_mask_moves_where_it_may(model):
    """With a noise mask the sampler lands where it would with the latent itself moved (Euler)."""
    patched = conducted(model, layout=True, guidance_weight=0.05, guidance_end=0.0)
    start = draw(1, 4, 8, 8, seed=3)
    mask = torch.ones(1, 1, 8, 8)
    mask[..., :4] = 0
    masked = picture(patched, latent=start, noise_mask=mask)
    everywhere = picture(patched, latent=start, noise_mask=torch.ones(1, 1, 8, 8))
    plain = picture(patched, latent=start)
    kept = model.model.process_latent_out(model.model.process_latent_in(start))
    torch.testing.assert_close(masked[..., :4], kept[..., :4], rtol=1e-3, atol=1e-3)
    # a mask of ones is no mask, though the host goes another way
    assert float((everywhere - plain).abs().max() / plain.abs().max()) < 2e-2
    unguided = picture(conducted(model), latent=start, noise_mask=torch.ones(1, 1, 8, 8))
    assert float((everywhere - unguided).abs().max() / plain.abs().max()) > 0.1


def test_one_guided_step_with_a_mask_is_exact():
    """Where the next step begins is what the shift itself makes of it."""
    model = tiny_model("sd15", dtype=torch.float64)
    patched = conducted(model, layout=True, guidance_weight=0.5, guidance_end=0.0)
    found = []
    for mask in (None, torch.ones(1, 1, 8, 8)):
        noted, calls = recording(patched)
        # a short step: most of the shift is still to come behind it
        picture(noted, noise_mask=mask, sigmas=torch.tensor([5.0, 4.0, 0.0]))
        found.append(calls.calls[1].x)
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-4 * float(found[0].abs().max()))


def test_twice_on_one_model_is_refused(model):
    with pytest.raises(ValueError, match="already has a Concept Conductor"):
        conducted(conducted(model))


def test_a_guided_step_that_is_held_is_said_once_a_run(model, caplog):
    patched = conducted(model, layout=True, guidance_weight=1000.0, guidance_end=1.0)
    assert picture(patched).abs().max() < 1e3
    assert caplog.text.count("further than the sampler's own steps") == 1
    caplog.clear()
    picture(conducted(model, layout=True, guidance_weight=1e-3, guidance_end=1.0))
    assert "further" not in caplog.text

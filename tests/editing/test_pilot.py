"""PILOT beside other things: off is nothing, samplers, batches, half precision, and what it refuses."""

import comfy.model_management as mm
import pytest
import torch
from comfy.model_base import ModelType
from comfy.patcher_extension import WrappersMP
from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete
from support.compare import relative
from support.editing import box, painted
from support.models import conditioning, sample, tiny_model
from support.references import PixelVAE, draw, half_mask, prompt, with_references
from support.thorough import few_of

from pack.kernels.masks import WHOLE
from pack.nodes.editing import pilot, pilot_series
from pack.nodes.editing.hole import Hole
from pack.nodes.host import messages
from pack.nodes.host.attach import attach, techniques_of
from pack.nodes.host.blocks import attention_blocks
from pack.nodes.host.layered_prompts import LAYERS
from pack.nodes.host.run import Run
from pack.nodes.text_contexts.context_router import ContextRouter

# long moves of a random network make its rounding large
GENTLE = {"lr": 0.002, "lr_first": 1e-4}


def drawn(model, **kwargs):
    return sample(model, prompt(model, 100), prompt(model, 200), **kwargs)


@pytest.fixture
def gradients(monkeypatch):
    """The rows of each gradient."""
    rows, real = [], pilot_series.Series._gradient_of
    monkeypatch.setattr(
        pilot_series.Series, "_gradient_of", lambda self, z, images: rows.append(len(z)) or real(self, z, images)
    )
    return rows


def test_a_black_mask_leaves_the_model(caplog):
    model = tiny_model()
    found, latent = painted(model, mask=torch.zeros(1, 64, 64))
    assert found is model and latent["samples"].shape == (1, 4, 8, 8)
    assert "the mask is black, so there is nothing to paint" in caplog.text


def test_a_white_mask_is_plain_sampling(caplog, gradients):
    model = tiny_model()
    found, _ = painted(model, mask=torch.ones(1, 64, 64))
    assert torch.equal(drawn(found), drawn(model)) and gradients == []
    assert "the mask is white all over" in caplog.text


@pytest.mark.parametrize("kind", ["sd15", "sd2", "sdxl"])
def test_what_is_kept_stays_and_the_hole_is_new(kind):
    model = tiny_model(kind, seed=0 if kind == "sd2" else None)
    image = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    # blending alone: at the end the surroundings are the picture's
    found, latent = painted(model, image=image, operations=1, gamma=0.0)
    result = drawn(found, latent=latent["samples"], steps=4)
    plain = drawn(model, latent=latent["samples"], steps=4)
    picture = PixelVAE().encode(image)
    hole = torch.zeros(8, 8, dtype=torch.bool)
    hole[2:6, 2:6] = True

    def away(found):
        return float((found - picture)[..., ~hole].square().mean())

    assert away(result) < 0.5 * away(plain)
    assert relative(result[..., hole], picture[..., hole]) > 0.1


@pytest.mark.parametrize("sampler", few_of(["euler", "dpmpp_2m", "heun", "dpm_2", "euler_ancestral"], "heun"))
def test_each_step_has_one_series(sampler, gradients):
    found, _ = painted(tiny_model(), operations=3, interval=1, gamma=1.0)
    result = drawn(found, sampler=sampler, steps=3)
    assert len(gradients) == 3 * 3 and bool(torch.isfinite(result).all())


def test_logarithms_as_timesteps_are_read_as_the_places_of_others(monkeypatch):
    """CosXL and Playground: series, their lengths and the end of blending are where they are on any model."""
    series, blended, given, own = [], [], [], []
    real, real_blended, real_forward = pilot_series.Series.moved, pilot.Pilot._blended, pilot_series.forward_of

    def moved(self):
        series.append((self.rate, self.settings.pull(self.timestep, 48.0)))
        own.append(float(self.sampling.timestep(self.sigma)))
        return real(self)

    def forward_of(unet):
        return lambda x, timesteps, *rest: given.append(float(timesteps)) or real_forward(unet)(x, timesteps, *rest)

    monkeypatch.setattr(pilot_series.Series, "moved", moved)
    monkeypatch.setattr(pilot_series, "forward_of", forward_of)
    monkeypatch.setattr(pilot.Pilot, "_blended", lambda self, *at: blended.append(at[1]) or real_blended(self, *at))
    places = []
    for model_type in (None, ModelType.V_PREDICTION_EDM, ModelType.EDM):
        model = tiny_model(model_type=model_type)
        assert bool(torch.isfinite(drawn(painted(model, operations=1, interval=3, **GENTLE)[0], steps=10)).all())
        places.append((series[:], blended[:]))
        # the UNet gets its own
        assert given == own
        for several in (series, blended, given, own):
            several.clear()
    assert len(places[0][0]) == 3 and places[0][1] == [8, 9]
    assert places[0] == places[1] == places[2]


@pytest.mark.parametrize("sampling", ["x0", "lcm", "v_prediction"])
def test_models_that_predict_something_else(sampling, gradients, monkeypatch):
    """A series takes its own loss down, whatever the model predicts; "x0" leaves the latent out of the loss."""
    losses, real = [], pilot_series.gradient_through

    def noted(loss_of, *rest):
        return real(lambda *outputs: losses.append(loss_of(*outputs)) or losses[-1], *rest)

    monkeypatch.setattr(pilot_series, "gradient_through", noted)
    (model,) = ModelSamplingDiscrete().patch(tiny_model(), sampling, False)
    found, _ = painted(model, operations=4, **GENTLE)
    assert bool(torch.isfinite(drawn(found, steps=1)).all())
    assert len(gradients) == 4 and bool(torch.stack(losses).diff().lt(0).all())


def test_a_hole_is_made_once_for_each_grid(monkeypatch):
    """Of a run: neither its steps nor the operations of its series make it again."""
    made, real = [], Hole.inside
    found, _ = painted(tiny_model(), operations=3, interval=1, gamma=1.0, **GENTLE)
    monkeypatch.setattr(Hole, "inside", lambda self, *place: made.append(place) or real(self, *place))
    first = drawn(found, steps=3)
    assert len(made) == len(set(made)) == 4 and {size for size, *_ in made} == {(8, 8)}
    assert torch.equal(drawn(found, steps=3), first) and len(made) == 8


def test_holes_that_are_kept_are_told_apart():
    run, cpu = Run(), torch.device("cpu")
    left, right = Hole(half_mask(64, 64)), Hole(1 - half_mask(64, 64))
    both = Hole(torch.cat([left.masks, right.masks, torch.ones(1, 64, 64)]))
    top = 0.0, 0.0, 0.5, 1.0
    for hole, pictures, size, grid, frame, device in (
        (left, [0, 1], (8, 8), (8, 8), WHOLE, cpu),
        (right, [0, 1], (8, 8), (8, 8), WHOLE, cpu),
        (right, [0], (8, 8), (4, 4), WHOLE, cpu),
        (right, [0], (16, 16), (4, 4), WHOLE, cpu),
        (right, [0], (16, 16), (4, 4), top, cpu),
        (both, [0, 1, 2, 3], (8, 8), (8, 8), WHOLE, cpu),
        (both, [2], (8, 8), (8, 8), WHOLE, cpu),
        (both, [2], (8, 8), (8, 8), WHOLE, torch.device("meta")),
    ):
        for _ in range(2):
            with torch.inference_mode():
                inside, some, every = hole.kept(run, pictures, size, grid, frame, device)
            wanted = hole.inside(size, grid, frame)[[number % len(hole.masks) for number in pictures]]
            assert (some, every) == (bool(wanted.any()), bool(wanted.all())) and inside.device == device
            assert not inside.is_inference() and (device != cpu or torch.equal(inside, wanted))


def test_two_stages_are_one_run(gradients):
    model, _ = painted(tiny_model(), operations=1, interval=2, gamma=1.0)
    whole = drawn(model, steps=4)
    count = len(gradients)
    half = drawn(model, steps=4, last_step=2, force_full_denoise=False)
    parts = drawn(model, latent=half, noise=torch.zeros_like(half), steps=4, start_step=2, disable_noise=True)
    assert relative(parts, whole) < 1e-4 and len(gradients) == 2 * count


def test_pictures_of_a_batch_do_not_see_each_other(monkeypatch):
    """The first move of each is what it is alone; later ones make the rounding of random networks large."""
    found, real = [], pilot_series.Series._gradient_of
    monkeypatch.setattr(pilot_series.Series, "_gradient_of", lambda *args: found.append(real(*args)) or found[-1])
    model = tiny_model()
    images = torch.rand(2, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    masks = torch.cat([box(), box(start=0, stop=32)])
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    drawn(painted(model, image=images, mask=masks)[0], latent=(2, 4, 8, 8), noise=noise, steps=1)
    together = found[0]
    assert relative(together[0], together[1]) > 0.1
    for i in range(2):
        found.clear()
        alone, _ = painted(model, image=images[i : i + 1], mask=masks[i : i + 1])
        drawn(alone, noise=noise[i : i + 1], steps=1)
        assert relative(found[0][0], together[i]) < 2e-4


def test_a_picture_by_itself_reads_its_own_text_of_a_batch(monkeypatch):
    """Layers that a prompt brings along are those of its first text, also where memory is short."""
    model = tiny_model()
    blocks = len(attention_blocks(model.model.diffusion_model))
    texts = torch.cat([prompt(model, 100)[0][0], prompt(model, 101)[0][0]])
    both = conditioning(texts, **{LAYERS: draw(blocks, 7, 32, seed=5)})
    images = torch.rand(2, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    ours = painted(attach(model, ContextRouter(("ED-LoRA",))), image=images, operations=1, gamma=1.0, **GENTLE)[0]
    found, real = [], pilot_series.Series._gradient

    def gradient(self, z):
        made = []
        for fits in (True, False):
            monkeypatch.setattr(pilot_series, "gradient_fits", lambda *_: fits)  # noqa: B023
            made.append(real(self, z))
        found.append(made)
        return made[0]

    monkeypatch.setattr(pilot_series.Series, "_gradient", gradient)
    sample(ours, both, prompt(model, 200), latent=(2, 4, 8, 8), steps=1)
    ((together, one_by_one),) = found
    assert relative(one_by_one[0], together[0]) < 1e-2 and relative(one_by_one[1], together[1]) < 1e-2


@pytest.mark.slow
def test_little_memory_takes_picture_by_picture(monkeypatch, gradients):
    model, _ = painted(tiny_model(), gamma=1.0, **GENTLE)
    whole = drawn(model, latent=(2, 4, 8, 8))
    gradients.clear()
    monkeypatch.setattr(pilot_series, "gradient_fits", lambda *_: False)
    assert relative(drawn(model, latent=(2, 4, 8, 8)), whole) < 1e-3 and set(gradients) == {1}


def test_memory_that_runs_out_takes_picture_by_picture(monkeypatch):
    model, _ = painted(tiny_model(), operations=1, gamma=1.0, **GENTLE)
    whole, real = drawn(model, latent=(2, 4, 8, 8), steps=1), pilot_series.Series._gradient_of

    def short(self, z, images):
        if len(z) > 1:
            raise mm.OOM_EXCEPTION("as a device says it")
        return real(self, z, images)

    monkeypatch.setattr(pilot_series.Series, "_gradient_of", short)
    assert relative(drawn(model, latent=(2, 4, 8, 8), steps=1), whole) < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "side", "kept"), [("sd15", 64, 0.77e9), ("sdxl", 128, 5.34e9)])
def test_what_a_gradient_keeps_is_announced(kind, side, kept):
    """The rows that a run asks memory for are as many of the sampler's own as that takes."""
    model = tiny_model(kind, dtype=torch.float16)
    patched, latent = painted(model, image=torch.rand(1, 8 * side, 8 * side, 3), mask=box(8 * side))
    shape = tuple(latent["samples"].shape)
    (technique,) = techniques_of(patched)
    row = model.model.memory_required([1, *shape[1:]])
    assert kept < technique.extra_rows(shape) * row < kept + 3 * row


@pytest.mark.parametrize("kind", ["sd2", "sdxl"])
def test_a_series_follows_the_slope_of_its_loss(kind, monkeypatch):
    """In double precision: what the gradient says of a small move is what the loss does."""
    found, losses, real = [], [], pilot_series.Series._gradient_of
    real_loss = pilot_series.gradient_through

    def noted(loss_of, *rest):
        return real_loss(lambda *outputs: losses.append(float(loss_of(*outputs))) or loss_of(*outputs), *rest)

    def looked(self, z, images):
        gradient = real(self, z.double(), images)
        way = torch.randn(z.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        for step in (1e-4, -1e-4):
            real(self, z.double() + step * way, images)
        found.append((float((gradient * way).sum()), (losses[-2] - losses[-1]) / 2e-4))
        return gradient.float()

    monkeypatch.setattr(pilot_series, "gradient_through", noted)
    monkeypatch.setattr(pilot_series.Series, "_gradient_of", looked)
    model = tiny_model(kind, dtype=torch.float64, seed=0 if kind == "sd2" else None)
    drawn(painted(model, operations=1, gamma=1.0)[0], steps=1)
    ((slope, change),) = found
    assert slope == pytest.approx(change, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_finite(dtype):
    model, _ = painted(tiny_model(dtype=dtype), gamma=1.0)
    assert bool(torch.isfinite(drawn(model)).all())


@pytest.mark.slow
def test_an_interrupt_leaves_nothing(monkeypatch):
    model, _ = painted(tiny_model(), gamma=1.0)
    whole = drawn(model)
    calls = []

    def interrupt():
        calls.append(None)
        if len(calls) == 3:
            raise mm.InterruptProcessingException

    monkeypatch.setattr(pilot_series.mm, "throw_exception_if_processing_interrupted", interrupt)
    with pytest.raises(mm.InterruptProcessingException):
        drawn(model)
    monkeypatch.undo()
    assert torch.equal(drawn(model), whole)


@pytest.mark.slow
def test_beside_references_in_any_order():
    base = tiny_model()
    one = painted(with_references(base), gamma=1.0)[0]
    other = with_references(painted(base, gamma=1.0)[0])
    assert relative(drawn(one), drawn(other)) < 1e-5
    assert relative(drawn(one), drawn(painted(base, gamma=1.0)[0])) > 1e-3


def test_odd_sizes_and_cfg_1():
    model, latent = painted(tiny_model(), image=torch.rand(1, 77, 93, 3), mask=box(), gamma=0.5)
    assert latent["samples"].shape == (1, 4, 9, 11)
    assert bool(torch.isfinite(drawn(model, latent=latent["samples"], cfg=1.0)).all())


def test_empty_prompt_and_tiny_hole_are_said(caplog):
    painted(tiny_model(), prompt=" ")
    assert "prompt is empty, so no word is pulled into the hole" in caplog.text
    painted(tiny_model(), mask=box(start=24, stop=32))
    assert "the hole is smaller than a token of every layer that guides" in caplog.text


def test_refusals():
    model, _ = painted(tiny_model())
    with pytest.raises(ValueError, match="PILOT blends by itself; take the latent without its noise mask"):
        drawn(model, noise_mask=torch.ones(1, 1, 64, 64))
    with pytest.raises(ValueError, match="the latent is for 96x64 pixels, PILOT's picture is 64x64"):
        drawn(model, latent=(1, 4, 8, 12))
    with pytest.raises(ValueError, match="this MODEL already has PILOT"):
        painted(model)
    with pytest.raises(ValueError, match="vae is empty"):
        painted(tiny_model(), vae=None)
    with pytest.raises(ValueError, match="lr is nan; enter a number"):
        painted(tiny_model(), lr=float("nan"))
    with pytest.raises(ValueError, match="the mask of the picture is empty"):
        painted(tiny_model(), mask=torch.zeros(1, 0, 8))
    with pytest.raises(ValueError, match="image is smaller than 8 pixels"):
        painted(tiny_model(), image=torch.rand(1, 4, 64, 3))


def test_a_hole_smaller_than_a_cell_is_not_called_black(caplog):
    model = tiny_model()
    found, _ = painted(model, mask=box(start=3, stop=6))
    assert found is model and "the hole is smaller than a cell of 8 x 8 pixels" in caplog.text


def test_a_prompt_longer_than_the_positive_is_said(monkeypatch):
    said = []
    monkeypatch.setattr(messages, "_show", said.append)
    model, _ = painted(tiny_model(), prompt="49406 " + "320 " * 20 + "49407", operations=1)
    texts = (prompt(model, seed, tokens=7) for seed in (100, 200))
    assert bool(torch.isfinite(sample(model, *texts, steps=1)).all())
    assert sum("prompt is longer than the positive prompt" in one for one in said) == 1


@pytest.mark.parametrize(("positive", "negative"), [(7, 14), (14, 7), (7, 21)])
def test_texts_that_the_host_repeats_act_as_alone(positive, negative):
    """Beside a longer text the host repeats the shorter one, whose start then stands several times."""
    model, _ = painted(tiny_model(), operations=0, gamma=1.0)
    texts = [prompt(model, seed, tokens=tokens) for seed, tokens in ((100, positive), (200, negative))]

    def each_in_a_call(executor, inner, conds, *args, **kwargs):
        alone = [[one if place == own else None for place, one in enumerate(conds)] for own in range(len(conds))]
        return [executor(inner, several, *args, **kwargs)[own] for own, several in enumerate(alone)]

    apart = model.clone()
    apart.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, "apart", each_in_a_call)
    together, alone = (sample(one, *texts, steps=1, cfg=5.0) for one in (model, apart))
    assert relative(together, alone) < 1e-4

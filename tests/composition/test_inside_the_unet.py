"""Packs that live inside the UNet, where no clean options keep them out of the passes that we add to a run."""

from uuid import UUID

import pytest
import torch
import torch.nn.functional as F
from comfy.ldm.modules.attention import BasicTransformerBlock
from composition.foreign import by_setter
from support.compare import differ
from support.concepts import conducted
from support.models import execute, tiny_model
from support.references import PixelVAE, draw, picture, prompt, references, with_references

from pack.nodes.masks.layout_mask_node import LayoutMask


@pytest.fixture
def model():
    return tiny_model("sd15")


@pytest.fixture
def user_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("folder_paths.get_user_directory", lambda: str(tmp_path))


# what the host always gives


@pytest.fixture
def given(model):
    """Looks into the options at every transformer block, as packs do that change its forward; notes the rows."""
    rows = []

    def look(block, args, kwargs):
        options, batch = kwargs["transformer_options"], args[0].shape[0]
        sides, uuids = options["cond_or_uncond"], options["uuids"]
        assert len(sides) == len(uuids) and all(isinstance(uuid, UUID) for uuid in uuids)
        assert not batch % len(sides) and batch // len(sides) == len(options["sigmas"])
        assert options["sample_sigmas"].ndim == 1 and options["wrappers"] is not None
        assert options["callbacks"] is not None
        rows.append(batch)

    blocks = [m for m in model.model.diffusion_model.modules() if isinstance(m, BasicTransformerBlock)]
    handles = [block.register_forward_pre_hook(look, with_kwargs=True) for block in blocks]
    yield rows
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("fidelity", [0.0, 1.0])
def test_options_of_reference_passes(model, given, fidelity):
    picture(with_references(model, references(3), style_fidelity=fidelity))
    assert 3 in given


def test_references_are_texts_of_their_own(model):
    seen = set()

    def look(block, args, kwargs):
        seen.update(kwargs["transformer_options"]["uuids"])

    (block, *_) = (m for m in model.model.diffusion_model.modules() if isinstance(m, BasicTransformerBlock))
    handle = block.register_forward_pre_hook(look, with_kwargs=True)
    picture(with_references(model, references(3)), steps=1)
    handle.remove()
    # prompt and negative, and three references
    assert len(seen) == 5


@pytest.mark.parametrize("cache_mb", [0, 64])
def test_options_of_guidance_and_inversion(model, given, cache_mb, user_folder):
    picture(conducted(model, layout=True, cache_mb=cache_mb, custom_factor=0.5))
    assert {1, 3} <= set(given)


def test_options_of_a_layout_mask(model, given):
    image = torch.rand(1, 64, 64, 3)
    execute(LayoutMask, model=model, vae=PixelVAE(), layout_image=image, layout_positive=prompt(model, 1))
    assert set(given) == {1}


# further channels


class Relit:
    """A first convolution of eight channels; `seen` is what it was given."""

    def __init__(self, model):
        self.unet = model.model.diffusion_model
        self.narrow = self.unet.input_blocks[0][0]
        self.wide = torch.nn.Conv2d(8, self.narrow.out_channels, 3, padding=1)
        self.wide.weight.data = torch.cat([self.narrow.weight, draw(*self.narrow.weight.shape, seed=4) * 0.1], 1)
        self.wide.bias.data = self.narrow.bias.data
        self.seen = []
        self.wide.register_forward_pre_hook(lambda layer, args: self.seen.append(args[0]))

    def during_the_call(self, apply, args):
        extra = torch.zeros_like(args["input"])
        self.unet.input_blocks[0][0] = self.wide
        try:
            return apply(args["input"], args["timestep"], **{**args["c"], "c_concat": extra})
        finally:
            self.unet.input_blocks[0][0] = self.narrow


def test_references_show_themselves_to_a_relighting_model(model):
    relit, chain = Relit(model), references(1)
    light = by_setter("set_model_unet_function_wrapper", relit.during_the_call)
    found = picture(light(with_references(model, chain)))
    assert differ(found, picture(light(model))) > 1e-2
    latent = model.model.process_latent_in(PixelVAE().encode(chain[0].image))
    of_references = [x for x in relit.seen if len(x) == 1]
    assert of_references
    for x in of_references:
        torch.testing.assert_close(x[:, 4:], latent)


def test_layout_pictures_of_a_relighting_model(model, user_folder):
    """Here the convolution stays wide for the whole run, as a patch of the weights leaves it."""
    relit = Relit(model)
    add = by_setter(
        "set_model_unet_function_wrapper",
        lambda apply, args: apply(args["input"], args["timestep"], **args["c"], c_concat=args["input"]),
    )
    relit.unet.input_blocks[0][0] = relit.wide
    settings = {"layout": True, "cache_mb": 64}
    found = picture(add(conducted(model, guidance_weight=0.01, **settings)))
    assert differ(found, picture(add(conducted(model, guidance_weight=0.0, **settings)))) > 1e-4
    image = torch.rand(1, 64, 64, 3)
    (mask,) = execute(LayoutMask, model=model, vae=PixelVAE(), layout_image=image, layout_positive=prompt(model, 1))
    assert mask.any()


# other grids


def shrunk(model):
    """The second level of the UNet halved once more inside, and what comes up brought back by the host itself."""
    down = model.model.diffusion_model.input_blocks[3][0]
    return down.register_forward_hook(lambda module, args, out: F.avg_pool2d(out, 2))


@pytest.mark.parametrize("cache_mb", [0, 64])
def test_references_on_the_grids_that_are_there(model, cache_mb):
    handle = shrunk(model)
    size = {"latent": (1, 4, 16, 16)}
    ours = with_references(model, cache_mb=cache_mb)
    first = picture(ours, **size)
    assert differ(first, picture(model, **size)) > 1e-2
    # a further picture reads the same from the bank
    assert differ(picture(ours, **size), first) < 1e-6
    handle.remove()


def test_the_bias_is_that_of_the_grid(model, monkeypatch):
    """A mask of 1 on the left and a half on the right: each kept token's own share, at the size that is there."""
    handle = shrunk(model)
    mask = torch.ones(1, 64, 64)
    mask[:, :, 32:] = 0.5
    segments = []
    from pack.nodes.reference_attention import mrsa

    real = mrsa.Segment
    monkeypatch.setattr(mrsa, "Segment", lambda *args: (segments.append(real(*args)), segments[-1])[1])
    picture(with_references(model, references(1, masks=[mask])), latent=(1, 4, 16, 16), steps=1)
    handle.remove()
    assert {len(segment.k) for segment in segments} - {64, 16, 4, 1} == set()
    for segment in segments:
        assert len(segment.bias) == len(segment.k)
        if len(segment.k) > 1:
            assert float(segment.bias.max() - segment.bias.min()) == pytest.approx(0.6931, abs=1e-3)


def test_a_mask_that_keeps_nothing_on_such_a_grid_leaves_the_reference_out_there(model):
    """A strip of one latent pixel beside the places that the coarser grids look at."""
    mask = torch.zeros(1, 64, 64)
    mask[:, :, 8:16] = 1
    size = {"latent": (1, 4, 16, 16)}
    handle = shrunk(model)
    found = picture(with_references(model, references(1, masks=[mask]), blocks="all"), **size)
    assert torch.isfinite(found).all() and differ(found, picture(model, **size)) > 1e-4
    handle.remove()


def test_a_layout_picture_on_such_grids(model):
    handle = shrunk(model)
    ours = conducted(model, layout=True, size=(16, 16), use_loss_mask=True, guidance_weight=0.01)
    plain = conducted(model, layout=True, size=(16, 16), guidance_weight=0.0)
    size = {"latent": (1, 4, 16, 16)}
    assert differ(picture(ours, **size), picture(plain, **size)) > 1e-5
    handle.remove()

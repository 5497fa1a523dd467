"""Other packs that sample several times inside one sampling, or change its noise: in any order of nodes."""

import pytest
import torch
from comfy.patcher_extension import WrappersMP
from composition.foreign import by_setter
from composition.scene import random
from support.compare import relative
from support.concepts import conducted
from support.image_prompts import with_pictures
from support.models import conditioning, execute, sample, tiny_model
from support.npnets import small_weights
from support.references import draw, picture, with_references

from pack.nodes.golden_noise.golden_noise_node import GoldenNoiseModel
from pack.nodes.golden_noise.npnet_file import net_from
from pack.nodes.host.attach import techniques_of
from pack.nodes.host.run_records import latest_record


def around_sampling(function):
    return by_setter("add_wrapper_with_key", WrappersMP.OUTER_SAMPLE, "another pack", function)


@around_sampling
def in_two_parts(executor, noise, latent, sampler, sigmas, *rest, **more):
    """As packs that put a picture in halfway."""
    half = executor(noise, latent, sampler, sigmas[:3], *rest, **more)
    return executor(torch.zeros_like(noise), half, sampler, sigmas[2:], *rest, **more)


@around_sampling
def twice(executor, noise, latent, *rest, **more):
    """As packs that begin again with what came out."""
    first = executor(noise, latent, *rest, **more)
    return executor(noise, 0.5 * first, *rest, **more)


@around_sampling
def other_noise(executor, noise, *rest, **more):
    return executor(random(*noise.shape, seed=5), *rest, **more)


@pytest.fixture
def model():
    return tiny_model()


LATE = {
    # behind the last noise level of the first part
    "references": lambda model: with_references(model, start_percent=0.5),
    "image prompts": lambda model: with_pictures(model, start_percent=0.5),
}


@pytest.mark.parametrize("attach", LATE.values(), ids=LATE)
def test_each_part_has_its_own_schedule(model, attach):
    before, behind = (picture(one, steps=6) for one in (in_two_parts(attach(model)), attach(in_two_parts(model))))
    assert torch.equal(before, behind)
    assert relative(picture(in_two_parts(model), steps=6), before) > 1e-3


@pytest.mark.parametrize("parts", [twice, in_two_parts], ids=["twice", "in two parts"])
def test_each_part_has_its_own_masks(model, parts):
    def attach(model):
        return conducted(model, refine_start=0.0, refine_end=1.0, kmeans_restarts=5)

    before, behind = (picture(one, steps=4) for one in (parts(attach(model)), attach(parts(model))))
    assert torch.equal(before, behind)
    assert relative(picture(parts(conducted(model)), steps=4), before) > 1e-3


def test_what_a_run_shows_is_that_of_its_last_part(model):
    ours = with_pictures(conducted(twice(model), refine_start=0.0, refine_end=1.0, kmeans_restarts=5))
    picture(twice(ours), steps=1)
    assert all(latest_record(technique) is not None for technique in techniques_of(ours))


def test_golden_noise_improves_the_noise_that_is_sampled(model):
    texts = [conditioning(draw(1, 77, 32, seed=seed)) for seed in (1, 2)]
    net = net_from(small_weights(prompt=32), "small")

    def attach(model):
        return execute(GoldenNoiseModel, model=model, npnet=net, conditioning=texts[0])[0]

    before, behind = (sample(one, *texts, steps=2) for one in (other_noise(attach(model)), attach(other_noise(model))))
    assert torch.equal(before, behind)
    assert relative(sample(other_noise(model), *texts, steps=2), before) > 1e-3

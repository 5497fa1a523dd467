"""The pocket model on several devices: its parts can be loaded again, as those of any checkpoint."""

import pytest
import torch
from support.compare import relative
from support.devices import CPUS, SELECT, cards, selectable, split, two_devices, with_cards, with_engine
from support.models import sample
from support.thorough import few_of

from pack.nodes.pocket import pocket_model
from pack.nodes.pocket.pocket_model import load_pocket

pytestmark = with_engine

SIZE = (1, 4, 16, 16)


@pytest.fixture
def parts(folder, monkeypatch):
    two_devices(monkeypatch)
    return load_pocket(folder)


def test_it_can_be_split(parts):
    model, clip, _ = parts
    texts = [clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in ("a photo of a dog", "")]
    ours = split(model)
    (copy,) = ours.get_additional_models_with_key("multigpu")
    assert copy.model is not model.model and copy.load_device != model.load_device
    assert relative(sample(ours, *texts, latent=SIZE), sample(model, *texts, latent=SIZE)) < 1e-5


@pytest.mark.parametrize("number", [0, 1, 2], ids=["model", "clip", "vae"])
def test_each_part_can_be_sent_to_another_device(parts, number):
    patcher = getattr(parts[number], "patcher", parts[number])
    other = patcher.deepclone_multigpu(next(device for device in CPUS if device != patcher.load_device))
    assert other.model is not patcher.model
    mine, theirs = (one.model.state_dict() for one in (patcher, other))
    assert list(mine) == list(theirs) and all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items())


@with_cards
@pytest.mark.parametrize("number", few_of([0, 1, 2], 1), ids=["model", "clip", "vae"])
def test_the_host_s_nodes_send_each_part_to_the_second_card(folder, monkeypatch, number):
    # loaded anew, on the first card
    monkeypatch.setattr(pocket_model, "_LOADED", {})
    with selectable(monkeypatch) as select:
        part = load_pocket(folder)[number]
        sent = SELECT[number].execute(part, "gpu:1").result[0]
        select()
        assert getattr(sent, "patcher", sent).load_device == cards()[1]
        if number == 2:
            latents = torch.randn(SIZE, generator=torch.Generator().manual_seed(1))
            assert relative(sent.decode(latents), part.decode(latents)) < 1e-6

"""What our techniques add to a call of the UNet beside its arithmetic: launches, waiting, copies."""

import pytest
import torch
from bench.launch_counter import Counter
from bench.launches import BUDGETS, SIGMAS, added, counted
from support.concepts import conducted
from support.devices import model_with_factory, two_cards, with_cards
from support.image_prompts import with_pictures
from support.models import tiny_model
from support.references import prompt, with_references

from pack.nodes.host.blocks import attention_blocks
from pack.nodes.host.run import Run
from pack.nodes.image_prompts.image_branch import ImageBranch

CARD = "maya"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_launches_stay_within_their_budgets(kind):
    found = added(kind, BUDGETS)
    over = {name: more for name, (_, more) in found.items() if name != "plain" and more > BUDGETS[name][kind]}
    assert not over
    # what is counted are the true structures, and each technique acts
    assert found["plain"][0].operators == pytest.approx({"sd15": 685, "sdxl": 1682}[kind], abs=60)
    assert all(more > 50 for name, (_, more) in found.items() if name != "plain")


def test_what_is_counted():
    """Views and memory set aside are no launches; what is only written is not read; a number read back is told."""
    a = torch.zeros(4, 8)
    with torch.inference_mode(False), torch.no_grad(), Counter() as count:
        b = a.view(8, 4).mT
        torch.empty_like(a).copy_(a)
        c = a + 1
        c.sum().item()
        assert b.shape == (4, 8)
    found = count.found
    assert found.by_name == {"copy_": 1, "add": 1, "sum": 1}
    assert (found.operators, found.numbers, found.copies) == (3, 1, [])
    # copy_, add and sum read 128 bytes each; they write 128, 128 and 4
    assert (found.read, found.written) == (3 * 128, 2 * 128 + 4)


def test_a_noise_level_is_read_once_for_each_tensor():
    run, first, second = Run(), torch.full((2,), 3.0), torch.full((2,), 2.0)
    with torch.inference_mode(False), torch.no_grad(), Counter() as count:
        assert [run.level(sigmas) for sigmas in (first, first, second, second, first)] == [3.0, 3.0, 2.0, 2.0, 3.0]
    assert count.found.numbers == 3


def all_together(model):
    return with_pictures(with_references(conducted(model), cache_mb=64), start_percent=0.0, end_percent=0.9)


@with_cards
def test_a_step_waits_for_one_number_at_most_and_more_is_noticed(monkeypatch):
    """On an emulated card, in the second picture: all techniques on one MODEL, then a `.item()` and a copy planted."""
    texts = {"texts": (prompt(tiny_model("sd15"), 100), prompt(tiny_model("sd15"), 200)), "card": CARD}
    with two_cards(monkeypatch):
        model = model_with_factory("sd15")
        patched = all_together(model)
        # the last of two steps: some numbers are read once in a run
        texts["sigmas"] = SIGMAS[:2]
        _, plain = counted(model, "sd15", **texts)
        _, clean = counted(patched, "sd15", before=1, **texts)
        assert plain.numbers == 0 and clean.numbers <= 1

        original = ImageBranch.prepare

        def planted(branch, whole):
            original(branch, whole)
            whole.sum().item()
            torch.ones(3).to(whole.device)

        monkeypatch.setattr(ImageBranch, "prepare", planted)
        _, found = counted(patched, "sd15", **texts)
    blocks = len(attention_blocks(model.model.diffusion_model))
    assert found.numbers - clean.numbers == len(found.to_card) - len(clean.to_card) == blocks

"""A batch sampled in windows gives what it gives at once; so does a picture cut into windows, in its place."""

from types import SimpleNamespace

import pytest
import torch
from composition.foreign import by_setter
from support.compare import differ
from support.concepts import conducted, strip
from support.editing import painted, pictures
from support.identity import with_instantid
from support.models import recording, sample, tiny_model
from support.references import prompt, references, with_references
from support.thorough import few_of

from pack.nodes.host.attach import techniques_of
from pack.nodes.host.frames import window_frame
from pack.nodes.host.run_records import latest_record

FRAMES = (4, 4, 8, 8)
REFINED = {"refine_start": 0.0, "refine_end": 1.0, "kmeans_restarts": 20}


@pytest.fixture(scope="module")
def model():
    return tiny_model("sd15", dtype=torch.float64)


def windows(parts, said=None):
    """A node that runs the frames of each part by themselves; said(rows): what it puts into the options."""

    def run(executor, base, conds, x, sigma, options):
        out = [torch.zeros_like(x) for _ in conds]
        for rows in parts:
            more = {
                **options,
                "transformer_options": {**options["transformer_options"], **(said(rows) if said else {})},
            }
            for whole, part in zip(out, executor(base, conds, x[rows], sigma[rows], more), strict=True):
                whole[rows] = part
        return out

    return by_setter("add_wrapper_with_key", "calc_cond_batch", "windows", run)


def of_the_host(rows):
    return {"context_window": SimpleNamespace(dim=0, index_list=rows)}


def of_animatediff(rows):
    return {"ad_params": {"sub_idxs": rows, "full_length": 4}}


def picture(model, latent=FRAMES, **kwargs):
    return sample(model, prompt(model, 100), prompt(model, 200), latent=latent, **kwargs)


@pytest.mark.parametrize("said", few_of([None, of_the_host, of_animatediff], of_the_host))
def test_masks_belong_to_frames(model, said):
    ours = conducted(model, **REFINED)
    wanted = picture(ours)
    record = latest_record(techniques_of(ours)[0])
    assert not torch.equal(record.end[:, 0], record.end[:, 3])
    for parts in ([[0, 1, 2], [3]], [[0, 1], [2, 3]], [[3, 1], [0, 2]]):
        assert differ(picture(windows(parts, said)(ours)), wanted) < 1e-4
        assert torch.equal(latest_record(techniques_of(ours)[0]).end, record.end)


def test_people_in_windows_of_several_lengths(monkeypatch):
    """As the host makes them, which puts the first frame before each window but the first."""
    ours = with_instantid(tiny_model("sdxl"), monkeypatch)
    latent = (3, 4, 8, 8)
    wanted = picture(ours, latent)
    assert differ(picture(windows([[0, 1], [2]], of_the_host)(ours), latent), wanted) < 1e-4


def test_frames_in_overlapping_windows_are_refined_once(model):
    ours = conducted(model, **REFINED)
    picture(ours)
    masks = latest_record(techniques_of(ours)[0]).end
    picture(windows([[0, 1, 2], [1, 2, 3]])(ours))
    assert torch.equal(latest_record(techniques_of(ours)[0]).end, masks)


def test_rows_that_nobody_can_tell_have_the_users_masks_and_it_is_said(model, caplog):
    """Another node changes what the model sees, in windows that it does not name."""

    def changed(executor, base, conds, x, sigma, options):
        out = [torch.zeros_like(x) for _ in conds]
        for rows in ([0, 1, 2], [3]):
            for whole, part in zip(out, executor(base, conds, 1.1 * x[rows], sigma[rows], options), strict=True):
                whole[rows] = part
        return out

    node = by_setter("add_wrapper_with_key", "calc_cond_batch", "windows", changed)
    assert differ(picture(node(conducted(model, **REFINED))), picture(node(conducted(model)))) < 1e-4
    assert caplog.text.count("without saying which pictures") == 1


def halves(executor, base, conds, x, sigma, options):
    """The host's context windows over the width: the left and the right half by turns."""
    out = [torch.zeros_like(x) for _ in conds]
    for columns in (range(8), range(8, 16)):
        window = SimpleNamespace(dim=3, index_list=list(columns))
        more = {**options, "transformer_options": {**options["transformer_options"], "context_window": window}}
        part = x[..., columns[0] : columns[-1] + 1]
        for whole, found in zip(out, executor(base, conds, part, sigma, more), strict=True):
            whole[..., columns[0] : columns[-1] + 1] = found
    return out


cut = by_setter("add_wrapper_with_key", "calc_cond_batch", "halves", halves)


def frames_with_holes(model, count=4):
    """The MODEL after PILOT with four pictures and one hole for each, or one for all: its text alone acts."""
    return painted(
        model,
        image=pictures(4),
        mask=torch.cat([strip(number, 4) for number in range(count)]),
        operations=0,
        gamma=1.0,
    )[0]


@pytest.mark.parametrize("said", few_of([None, of_the_host, of_animatediff], None, of_the_host))
def test_holes_belong_to_frames(model, said):
    ours = frames_with_holes(model)
    wanted = picture(ours, steps=2)
    assert differ(wanted, picture(model, steps=2)) > 1e-2
    for parts in ([[0, 1], [2, 3]], [[3, 1], [0, 2]]):
        assert differ(picture(windows(parts, said)(ours), steps=2), wanted) < 1e-4


def test_holes_of_frames_that_nobody_can_tell_are_left_out_and_it_is_said(model, caplog):
    """Another node changes what the model sees, in windows that it does not name."""

    def changed(executor, base, conds, x, sigma, options):
        parts = [executor(base, conds, 1.1 * x[rows], sigma[rows], options) for rows in ([0, 1], [2, 3])]
        return [torch.cat(part) for part in zip(*parts, strict=True)]

    node = by_setter("add_wrapper_with_key", "calc_cond_batch", "windows", changed)
    assert torch.equal(picture(node(frames_with_holes(model)), steps=2), picture(node(model), steps=2))
    assert "nobody can tell which pictures" in caplog.text
    caplog.clear()
    # one hole for all needs no number
    assert differ(picture(node(frames_with_holes(model, 1)), steps=2), picture(node(model), steps=2)) > 1e-2
    assert "nobody can tell" not in caplog.text


def test_windows_over_the_width_cut_the_masks_of_concepts(model, caplog):
    """Each half is the picture of the concept whose mask covers it."""
    both, calls = recording(cut(conducted(model, size=(8, 16))))
    picture(both, latent=(1, 4, 8, 16), steps=1)
    for number, call in enumerate(calls.calls):
        alone, one = recording(conducted(model, chain_of(model, number)))
        picture(alone, latent=(1, 4, 8, 8), noise=call.x[:1], sigmas=torch.tensor([14.6146, 0.0]), steps=1)
        assert differ(call.cond, one.calls[0].cond) < 1e-4
    assert len(calls.calls) == 2 and "left out" not in caplog.text


def chain_of(model, number):
    """The one concept of two that stands in a half, everywhere."""
    from dataclasses import replace

    from support.concepts import random_concepts

    return (replace(random_concepts(model, 2)[number], mask=torch.ones(64, 64)),)


def test_windows_over_the_width_cut_the_regions_of_references(model, caplog):
    right = torch.zeros(1, 64, 128)
    right[..., 64:] = 1
    ours, calls = recording(cut(with_references(model, references(1, region=[right]), cache_mb=0)))
    picture(ours, latent=(1, 4, 8, 16), steps=1)
    plain, others = recording(cut(model))
    picture(plain, latent=(1, 4, 8, 16), steps=1)
    left, right = (differ(a.cond, b.cond) for a, b in zip(calls.calls, others.calls, strict=True))
    assert left < 1e-9 and right > 1e-3 and "regions" not in caplog.text


def test_frames_of_windows():
    def frame(indices, dim=3, shown=(8, 4), whole=(8, 16), **more):
        return window_frame({"context_window": SimpleNamespace(dim=dim, index_list=indices, **more)}, shown, whole)

    assert frame([4, 5, 6, 7]) == (0.0, 0.25, 1.0, 0.5)
    assert frame([5, 6, 7], causal_anchor_index=4) == (0.0, 0.25, 1.0, 0.5)
    assert frame([2, 3], dim=2, shown=(2, 16)) == (0.25, 0.0, 0.5, 1.0)
    # around the edge, with gaps, of another size, over frames
    assert frame([15, 0, 1, 2]) is None and frame([0, 2, 4, 6]) is None
    assert frame([4, 5, 6]) is None and frame([4, 5, 6, 7], dim=0) is None
    assert window_frame({}, (8, 4), (8, 16)) is None

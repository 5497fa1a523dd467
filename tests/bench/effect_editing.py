"""PILOT against the host's noise mask, and VisCtrl: is the new thing there, and is all else as it was?

    python tests/bench/effect_editing.py --table tests/bench/results/effect_editing.md

PILOT: of two things in a picture that the model has drawn, the right one is painted over with a third. `seam` is the
step of brightness across the hole's edge, `change` that of the colours outside of it, both before the picture is put
back around the hole. VisCtrl: a thing takes the place of another, both cut out on white; looks is the reference's hue.
"""

from dataclasses import replace

import drawn
import effects

# x, y, width, height of the hole, in cells of the latent: the right half
HOLE = (8, 3, 8, 10)
CELL = 8
PILOT_STEPS = 20


def main():
    options = effects.parsed(effects.parser(__doc__))
    from questions import pairs

    drawer = drawn.Drawer(options, effects.pocket(options), effects.judge_of(options))
    asked = pairs(options.count)
    arms, said = painting(options, drawer)
    effects.compare(options, "a hole painted", arms, asked, said)
    arms, said = replacing(drawer)
    effects.compare(options, "a thing replaced", arms, asked, said)


def painting(options, drawer):
    """(arms, what is asked of their pictures): the right thing of a picture painted over."""
    import comfy.sample
    import torch
    from samples import encode
    from support.models import execute
    from things import KNOWN
    from world import one_of

    from pack.nodes.editing.pilot_node import PILOT

    model, clip, vae = drawer.parts
    mask, known = hole(), tuple(KNOWN)

    def other(question):
        """The Question with another thing in the hole."""
        left, right = question.things
        new = next(known[known.index(right) - step] for step in (7, 8) if known[known.index(right) - step] != left)
        return replace(question, things=(left, new))

    def text(question):
        return f"{one_of(other(question).things[1])} on the right on {one_of(question.colour)} background"

    @torch.inference_mode()
    def sampled(question, model, latent, **more):
        noise = comfy.sample.prepare_noise(latent, question.seed)
        texts = encode(clip, text(question)), encode(clip, "")
        given = {"disable_pbar": True, "seed": question.seed, **more}
        made = comfy.sample.sample(model, noise, PILOT_STEPS, options.cfg, "euler", "normal", *texts, latent, **given)
        return vae.decode(made)

    @torch.inference_mode()
    def masked(question):
        return sampled(question, model, vae.encode(drawer.draw(question)[0]), noise_mask=mask[:, None])

    @torch.inference_mode()
    def moved(question, **settings):
        given = {"image": drawer.draw(question)[0], "mask": mask, "prompt": text(question), **settings}
        patched, latent = execute(PILOT, model=model, clip=clip, vae=vae, **given)
        return sampled(question, patched, latent["samples"])

    arms = {"noise mask": masked, "the picture as it was": lambda question: drawer.draw(question)[0]}
    for name, settings in (
        ("PILOT, operations 5", {"operations": 5}),
        ("PILOT, operations 5, coef 0", {"operations": 5, "coef": 0.0}),
        ("PILOT, no operations, gamma 0", {"operations": 0, "gamma": 0.0}),
    ):
        arms[name] = lambda question, settings=settings: moved(question, **settings)

    def said(question, picture, judge):
        found = seen_of(other(question), picture, judge)
        new, old = found["new"], seen_of(question, picture, judge)["new"]
        change = (picture - drawer.draw(question)[0]).abs().mean(-1)[mask == 0].mean()
        whole = new and not old and found["kept"]
        return {"new thing": new, "kept thing": found["kept"], "both, old gone": whole} | {
            "seam": seam(picture), "change": float(change)
        }  # fmt: skip

    return arms, said


def replacing(drawer):
    """(arms, what is asked of their pictures): VisCtrl, from a drawn picture of one thing to that of another."""
    import sight
    import torch
    from looks import apart
    from questions import Question
    from samples import encode
    from support.models import execute

    from pack.nodes.editing.subject_crop_node import SubjectCrop
    from pack.nodes.editing.visctrl_node import VisCtrlNode

    model, clip, vae = drawer.parts

    def cut(question, thing):
        picture, mask, hue = drawer.draw(Question((thing,), question.colour, question.seed))
        return *execute(SubjectCrop, image=picture, mask=mask, size=16 * CELL)[:2], hue

    @torch.inference_mode()
    def replaced(question, named=False, **settings):
        old, new = question.things
        texts = [Question((thing,), "white", 0).prompt() for thing in (new if named else old, new)]
        positive, theirs, negative = (encode(clip, text) for text in (*texts, ""))
        given = {"positive": positive, "reference_positive": theirs, "negative": negative}
        given |= {"image": cut(question, old)[0], "reference_image": cut(drawn.elsewhere(question), new)[0]}
        return execute(VisCtrlNode, model=model, vae=vae, **given, **settings)[0]

    gentle, early = {"cfg": 1.0, "later_cfg": 1.0}, {"start_step": 0, "later_start": 0}
    arms = {}
    for name, settings in (
        ("as published", {}),
        ("cfg 1, nothing read", {"start_step": 9, "iterations": 1, **gentle}),
        ("cfg 1", gentle),
        ("cfg 1, start_step 0", {**early, **gentle}),
        ("cfg 1, start_step 0, the new thing named in positive", {"named": True, **early, **gentle}),
    ):
        arms[name] = lambda question, settings=settings: replaced(question, **settings)

    def said(question, picture, judge):
        words = sight.sightings(picture[0].float(), judge.look(picture.movedim(-1, 1).float()))
        place, hue = cut(question, question.things[0])[1][0], cut(drawn.elsewhere(question), question.things[1])[2]
        looks = apart(sight.hue_in(picture[0], place), hue) < sight.NEAR
        old, new = (thing in words for thing in question.things)
        return {"new thing": new, "old thing gone": not old, "looks": looks, "new thing and looks": new and looks}

    return arms, said


def hole():
    """MASK (1, h, w), white on the hole."""
    import torch

    x, y, width, height = (CELL * length for length in HOLE)
    mask = torch.zeros(1, 16 * CELL, 16 * CELL)
    mask[:, y : y + height, x : x + width] = 1
    return mask


def seam(picture):
    """The mean step of brightness across the edge of the hole in a picture (1, h, w, 3), where it lies inside."""
    import torch

    x, y, width, height = (CELL * length for length in HOLE)
    grey, right, bottom = picture[0].mean(-1), x + width, y + height
    steps = [grey[y:bottom, x] - grey[y:bottom, x - 1], grey[y, x:right] - grey[y - 1, x:right]]
    steps.append(grey[bottom, x:right] - grey[bottom - 1, x:right])
    return float(torch.cat(steps).abs().mean())


def seen_of(question, picture, judge):
    """Whether the things of a question are there: the right one, `new`, and in its half the left one, `kept`."""
    from questions import seen

    ((_, _, places),) = seen(picture, judge)
    left, right = question.things
    return {"kept": left in places and places[left][0] < 0.5, "new": right in places and places[right][0] > 0.5}


if __name__ == "__main__":
    main()

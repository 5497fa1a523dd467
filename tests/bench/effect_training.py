"""What does a training learn from 1, 3 and 5 pictures? Each method, beside the host's own trainer with equal steps.

    python tests/bench/effect_training.py --table tests/bench/results/effect_training.md

1. One thing in a look: hearts of one hue, in pictures of many places and sizes on grey. Each method learns them once
   for each number of pictures; then the trained words are asked for on other backgrounds. A picture is right if the
   thing, its look and the background are. The host's Train LoRA gets the same pictures, text, rank, rate, batch, steps.
2. Two things of one picture: a word for each of them by `scene`, against a LoRA for each of them (with its mask), both
   stacked and as concepts of Concept Conductor.
"""

import tempfile
from pathlib import Path

import effects
import taught
from taught import HUES, OTHER, THING


def main():
    parser = effects.parser(__doc__)
    parser.add_argument("--pictures", type=int, nargs="+", default=[1, 3, 5], help="to learn from, a training for each")
    parser.add_argument("--train-steps", type=int, default=120, help="of each training")
    options = effects.parsed(parser)
    with tempfile.TemporaryDirectory(prefix="effect-training-") as folder:
        taught.files_in(Path(folder))
        trainings = taught.Trainings(options)
        one_thing(options, trainings)
        two_things(options, trainings)


def one_thing(options, trainings):
    import sight
    import torch
    from questions import singles
    from samples import draw

    def drawing(model, clip, words):
        @torch.inference_mode()
        def drawn(question):
            asked = question.prompt({THING: words})
            return draw((model, clip, trainings.vae), asked, [question.seed], steps=options.steps, cfg=options.cfg)

        return drawn

    kind = "one thing in a look"
    if options.only not in kind:
        return
    arms = {"the model alone": drawing(trainings.model, trainings.clip, THING)}
    for method in ("word", "LoRA", "ED-LoRA"):
        for count in options.pictures:
            arms[f"{method}, {count} pictures"] = drawing(*trainings.of_pictures(method, *trainings.shown(count)))
    for count in options.pictures:
        arms[f"the host's Train LoRA, {count} pictures"] = drawing(*trainings.by_the_host(trainings.shown(count)[0]))

    def said(question, picture, judge):
        return sight.answers(question, picture, judge, [HUES[THING]])

    effects.compare(options, kind, arms, singles(options.count, things=(THING,)), said)


def two_things(options, trainings):
    import sight
    import torch
    from questions import Question, pairs
    from samples import draw
    from support.models import execute

    from pack.nodes.concept_conductor.concept_conductor_node import ConceptConductor
    from pack.nodes.concept_conductor.concepts_node import AddConcept
    from pack.nodes.masks.box_mask_node import BoxMask

    kind = "two things of one picture"
    if options.only not in kind:
        return
    picture, masks = taught.scene(trainings.world)
    scene = trainings.of_scene(picture, masks)
    learned = [
        trainings.of_pictures("LoRA", picture, mask[None], thing, f"_{thing}")
        for thing, mask in zip((THING, OTHER), masks, strict=True)
    ]
    halves = [execute(BoxMask, x=x, y=0.0, width=0.5, height=1.0)[0] for x in (0.0, 0.5)]

    def drawn(question, model, clip, words):
        asked = question.prompt(dict(zip((THING, OTHER), words, strict=True)))
        with torch.inference_mode():
            said = {"steps": options.steps, "cfg": options.cfg}
            return draw((model, clip, trainings.vae), asked, [question.seed], **said)

    own = [words for *_, words in learned]

    def stacked(question):
        model = trainings.model
        for one, *_ in learned:
            model = taught.patched_as(model, one)
        return drawn(question, model, trainings.clip, own)

    @torch.inference_mode()
    def conducted(question):
        from samples import encode

        chain = ()
        for thing, (model, clip, words), mask in zip((THING, OTHER), learned, halves, strict=True):
            text = Question((words, words), question.colour, 0).prompt()
            inputs = {"model": model, "positive": encode(clip, text), "word": thing, "mask": mask}
            (chain,) = execute(AddConcept, concepts=chain, **inputs)
        kept = {"refine_start": 1.0, "refine_end": 0.0, "guidance_weight": 0.0}
        (model,) = execute(ConceptConductor, model=trainings.model, concepts=chain, **kept)
        return drawn(question, model, trainings.clip, (THING, OTHER))

    arms = {
        "the model alone": lambda question: drawn(question, trainings.model, trainings.clip, (THING, OTHER)),
        "scene": lambda question: drawn(question, *scene[:2], ("<a>", "<b>")),
        "two LoRAs, stacked": stacked,
        "two LoRAs, Concept Conductor": conducted,
    }
    asked = [Question((THING, OTHER), one.colour, one.seed) for one in pairs(options.count)]

    def said(question, picture, judge):
        return sight.answers(question, picture, judge, [HUES[thing] for thing in question.things])

    effects.compare(options, kind, arms, asked, said)


if __name__ == "__main__":
    main()

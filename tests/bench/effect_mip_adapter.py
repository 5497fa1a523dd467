"""Does each of two things get the look of its own reference? MIP-Adapter against a plain IP-Adapter, same seeds.

    python tests/bench/effect_mip_adapter.py --cache output/pocket --table tests/bench/results/effect_mip_adapter.md

Two known things side by side, each with a reference in a hue of its own, at least a third of a turn apart. No word says
how a thing is coloured. A picture is right if things, looks and background are.
"""

import effects


def main():
    parser = effects.parser(__doc__)
    parser.add_argument(
        "--scale", type=float, nargs="+", default=[1.0], help="how strong pictures are, an arm for each"
    )
    options = effects.parsed(parser, "clip_vision/*.safetensors", "ipadapter/*.safetensors")
    import sight
    import torch
    from companions import VISION_FILE, load_vision
    from image_adapter import KINDS, file_of
    from questions import hues_for, pairs
    from safetensors.torch import load_file
    from samples import draw
    from support.models import execute
    from tints import tinted_world

    from pack.nodes.image_adapters.image_adapter import adapter_from
    from pack.nodes.image_prompts.mip_adapter_node import MIPAdapter
    from pack.nodes.masks.box_mask_node import BoxMask
    from pack.nodes.references.references_node import AddReference

    parts, world = effects.pocket(options), tinted_world(options.cache)
    model, clip, vae = parts
    eyes = load_vision(options.companions / VISION_FILE)
    adapters = {kind: adapter_from(load_file(options.companions / file_of(kind)), f"{kind}_adapter") for kind in KINDS}

    def plain(question, model=model):
        return draw((model, clip, vae), question.prompt(), [question.seed], steps=options.steps, cfg=options.cfg)

    halves = [execute(BoxMask, x=x, y=0.0, width=0.5, height=1.0)[0] for x in (0.0, 0.5)]

    @torch.inference_mode()
    def referred(question, kind, merge, scale, regions=(None, None)):
        chain = ()
        for thing, hue, region in zip(question.things, hues_for(question), regions, strict=True):
            picture, mask = effects.shown(thing, hue, world, question.seed)
            said = {"word": thing, "region": region}
            (chain,) = execute(AddReference, image=picture, mask=mask, references=chain, **said)
        inputs = {"model": model, "clip": clip, "clip_vision": eyes, "references": chain, "scale": scale}
        (patched,) = execute(MIPAdapter, adapter=adapters[kind], merge=merge, **inputs)
        return plain(question, patched)

    def looks(question, picture, judge):
        return sight.answers(question, picture, judge, hues_for(question))

    arms = {"prompt only": plain}
    for scale in options.scale:
        for name, *setting in (
            ("IP-Adapter, all pictures everywhere", "ip", "joint", scale),
            ("MIP-Adapter's file, all pictures everywhere", "mip", "joint", scale),
            ("MIP-Adapter", "mip", "weighted", scale),
            ("MIP-Adapter, a region for each", "mip", "weighted", scale, halves),
        ):
            arms[f"{name}, scale {scale:g}"] = lambda question, setting=setting: referred(question, *setting)
    effects.compare(options, "two things in two looks", arms, pairs(options.count), looks)


if __name__ == "__main__":
    main()

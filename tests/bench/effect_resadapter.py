"""Does a ResAdapter let the pocket model draw sizes it was not trained for? With and without it, same seeds.

    python tests/bench/effect_resadapter.py --sides 64 192 256 --table tests/bench/results/effect_resadapter.md

The set is resadapter_pocket of nodes/pocket/companions (tests/pocket/resolutions.py). The judge knows pictures of
128 x 128 pixels, so it sees the others at that size.
"""

import effects


def main():
    parser = effects.parser(__doc__)
    parser.add_argument("--sides", type=int, nargs="+", default=[64, 96, 192, 256], metavar="PIXELS")
    options = effects.parsed(parser, "resadapter/*/*.safetensors")
    import folder_paths
    import torch
    from questions import pairs, singles
    from resolutions import SET
    from samples import draw
    from support.models import execute

    from pack.nodes.resadapter.resadapter_node import ResAdapter

    folder_paths.add_model_folder_path("resadapter", str((options.companions / SET).absolute().parent))
    model, clip, vae = effects.pocket(options)
    adapted, report = execute(ResAdapter, model=model, adapter_set=SET.name, alpha=1.0)
    print(report)

    def drawing(chosen, side):
        def answer(question):
            said = {"steps": options.steps, "cfg": options.cfg, "size": (side, side)}
            picture = draw((chosen, clip, vae), question.prompt(), [question.seed], **said)
            return torch.nn.functional.interpolate(
                picture.movedim(-1, 1), size=(128, 128), mode="bilinear", antialias=True
            ).movedim(1, -1)

        return answer

    for side in options.sides:
        arms = {"without": drawing(model, side), "ResAdapter": drawing(adapted, side)}
        for kind, asked in (("one thing", singles(options.count)), ("two things", pairs(options.count))):
            effects.compare(options, f"{kind}, {side} pixels", arms, asked)


if __name__ == "__main__":
    main()

"""Does a ResAdapter let the pocket model draw sizes it was not trained for? With and without it, same seeds.

    python tests/bench/effect_resadapter.py --sides 64 192 256 --table tests/bench/results/effect_resadapter.md

The set is tests/pocket/companions/resadapter_pocket (tests/pocket/resolutions.py). The judge knows pictures of
128 x 128 pixels, so it sees the others at that size.
"""

from pathlib import Path

import effects


def main():
    parser = effects.parser(__doc__)
    parser.add_argument("--sides", type=int, nargs="+", default=[64, 96, 192, 256], metavar="PIXELS")
    parser.add_argument("--sets", type=Path, default=effects.COMPANIONS, help="folder that holds resadapter_pocket")
    options = effects.parsed(parser)
    import folder_paths
    import judge
    import torch
    from questions import pairs, singles
    from samples import draw
    from tiny import execute

    from pack.nodes.host.pocket import load_pocket
    from pack.nodes.resadapter import ResAdapter

    folder_paths.add_model_folder_path("resadapter", str(options.sets.absolute()))
    model, clip, vae = load_pocket()
    adapted, report = execute(ResAdapter, model=model, adapter_set="resadapter_pocket", alpha=1.0)
    print(report)

    def drawing(chosen, side):
        def answer(question):
            picture = draw((chosen, clip, vae), question.prompt(), [question.seed], size=(side, side))
            return torch.nn.functional.interpolate(
                picture.movedim(-1, 1), size=(128, 128), mode="bilinear", antialias=True
            ).movedim(1, -1)

        return answer

    asked = {"one thing": singles(options.count), "two things": pairs(options.count)}
    for side in options.sides:
        arms = {f"{side} pixels": drawing(model, side), f"{side} pixels, ResAdapter": drawing(adapted, side)}
        effects.compare(options, arms, asked, judge.load())


if __name__ == "__main__":
    main()

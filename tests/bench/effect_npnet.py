"""Does re-denoised noise make the pocket model draw more of what the prompt names? Against plain noise, same seeds.

    python tests/bench/effect_npnet.py --count 200 --table tests/bench/results/effect_npnet.md

Re-denoise costs three UNet calls, so another arm has two steps more with plain noise. Golden Noise has the NPNet of
tests/pocket/golden_noise.py, and is left out where that file is missing.
"""

import effects


def main():
    options = effects.parsed(effects.parser(__doc__))
    import judge
    import torch
    from comfy_extras.nodes_custom_sampler import Noise_RandomNoise
    from questions import pairs, singles
    from safetensors.torch import load_file
    from samples import draw, encode
    from tiny import execute

    from pack.nodes.host.npnet_file import net_from
    from pack.nodes.host.pocket import load_pocket
    from pack.nodes.npnet import GoldenNoiseNode, Redenoise

    parts = load_pocket()
    empty = encode(parts[1], "")

    def plain(question, steps=20):
        return draw(parts, question.prompt(), [question.seed], steps=steps)

    @torch.inference_mode()
    def from_noise(question, node, **inputs):
        noise = Noise_RandomNoise(question.seed)
        found = execute(node, noise=noise, **inputs)[0]
        made = found.generate_noise({"samples": torch.zeros(1, 4, 16, 16)})
        return draw(parts, question.prompt(), [question.seed], noise=made)

    def redenoised(question):
        positive = encode(parts[1], question.prompt())
        return from_noise(question, Redenoise, model=parts[0], positive=positive, negative=empty, guidance=4.0)

    def golden(question):
        return from_noise(question, GoldenNoiseNode, npnet=net, conditioning=encode(parts[1], question.prompt()))

    arms = {"plain noise": plain, "two steps more": lambda question: plain(question, 22), "Re-denoise": redenoised}
    path = effects.COMPANIONS / "npnet_pocket.safetensors"
    if path.is_file():
        net = net_from(load_file(path), path.name)
        arms["Golden Noise"] = golden
    effects.compare(
        options, arms, {"one thing": singles(options.count), "two things": pairs(options.count)}, judge.load()
    )


if __name__ == "__main__":
    main()

"""Does re-denoised noise make the pocket model draw more of what the prompt names? Against plain noise, same seeds.

    python tests/bench/effect_npnet.py --count 200 --table tests/bench/results/effect_npnet.md

Re-denoise costs three UNet calls, so another arm has two steps more with plain noise. Golden Noise has the NPNet of
tests/pocket/golden_noise.py.
"""

import effects


def main():
    options = effects.parsed(effects.parser(__doc__), "npnet/*.safetensors")
    import torch
    from comfy_extras.nodes_custom_sampler import Noise_RandomNoise
    from golden_noise import FILE
    from questions import pairs, singles
    from safetensors.torch import load_file
    from samples import draw, encode
    from support.models import execute

    from pack.nodes.golden_noise.golden_noise_node import GoldenNoiseNode
    from pack.nodes.golden_noise.npnet_file import net_from
    from pack.nodes.golden_noise.redenoise_node import Redenoise

    parts = effects.pocket(options)
    empty = encode(parts[1], "")

    def plain(question, more=0):
        return draw(parts, question.prompt(), [question.seed], steps=options.steps + more, cfg=options.cfg)

    @torch.inference_mode()
    def from_noise(question, node, **inputs):
        noise = Noise_RandomNoise(question.seed)
        found = execute(node, noise=noise, **inputs)[0]
        made = found.generate_noise({"samples": torch.zeros(1, 4, 16, 16)})
        return draw(parts, question.prompt(), [question.seed], steps=options.steps, cfg=options.cfg, noise=made)

    def redenoised(question):
        positive = encode(parts[1], question.prompt())
        return from_noise(question, Redenoise, model=parts[0], positive=positive, negative=empty, guidance=options.cfg)

    def golden(question):
        return from_noise(question, GoldenNoiseNode, npnet=net, conditioning=encode(parts[1], question.prompt()))

    path = options.companions / FILE
    net = net_from(load_file(path), path.name)
    arms = {
        "plain noise": plain,
        "two steps more": lambda question: plain(question, more=2),
        "Re-denoise": redenoised,
        "Golden Noise": golden,
    }
    for kind, asked in (("one thing", singles(options.count)), ("two things", pairs(options.count))):
        effects.compare(options, kind, arms, asked)


if __name__ == "__main__":
    main()

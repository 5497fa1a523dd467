"""What words that change while sampling cost: multiplications and additions, counted, beside a plain step with CFG.

    COMFYUI_PATH=... python tests/bench/bench_text_contexts.py

Counted at full size without weights. NeTI reads the prompt once for each layer of the UNet at every timestep; Perfusion
edits each row of a prompt at each layer; all other words of the pack, stage prompts and AlignIT add nothing to a step.
"""

import sys
from pathlib import Path

# Of a step with CFG at 512 x 512, what NeTI may take.
GOAL = 0.14
SIZE, LAYERS, TOKENS, WIDTH, CONCEPTS = 512, 16, 77, 768, 1


def made_flops(rows=LAYERS):
    """FLOPs of making the contexts of one timestep: a prompt with one word, read once for each of `rows` layers."""
    import torch
    from comfy.sd1_clip import SDClipModel
    from torch.utils.flop_counter import FlopCounterMode

    from pack.nodes.text_contexts.made_contexts import MadeContexts
    from pack.nodes.text_contexts.readings import PromptReading
    from pack.nodes.text_contexts.word_tokenizer import MAKER, ROWS

    class Maker:
        layers, contents = rows, ()

        def at(self, timestep):
            return torch.zeros(rows, WIDTH, device="meta"), torch.zeros(rows, WIDTH, device="meta")

    word = torch.zeros(WIDTH, device="meta")
    setattr(word, ROWS, torch.zeros(1, 1, WIDTH, device="meta"))
    setattr(word, MAKER, Maker())
    part = [(49406, 1.0), (320, 1.0), (word, 1.0), *[(49407, 1.0)] * (TOKENS - 3)]
    encoder = SDClipModel(device="meta", dtype=torch.float32)
    readings = tuple(PromptReading(0, layer) for layer in range(rows))
    contexts = MadeContexts(encoder, [part], readings, -1, None)
    encoder.layer, encoder.layer_idx, encoder.layer_norm_hidden_state = "hidden", -1, False
    encoder.execution_device = torch.device("meta")
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        contexts._made(500.0)
    return counter.get_total_flops()


def edited_flops(concepts=CONCEPTS):
    """FLOPs of Perfusion in a step with CFG: similarities, their removal and outputs, of keys and values."""
    from flops import unet_config

    channels = unet_config("sd15", 320)["model_channels"]
    widths = [channels * factor for factor in (1, 1, 2, 2, 4, 4, 4, 4, 4, 4, 2, 2, 2, 1, 1, 1)]
    rows = 2 * TOKENS
    return sum(2 * rows * concepts * 2 * (2 * WIDTH + width) for width in widths)


def main():
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
    import conftest  # noqa: F401
    from flops import costs

    step = 2 * costs("sd15", SIZE, range(LAYERS)).plain
    lines = [f"a step with CFG, SD1.5 at {SIZE} x {SIZE}: {step / 1e9:.1f} GF", ""]
    lines += ["| words | more in a step | share |", "| --- | --- | --- |"]
    made, edited = made_flops(), edited_flops()
    lines.append(f"| NeTI, {LAYERS} readings at a timestep | {made / 1e9:.1f} GF | {made / step:.1%} |")
    lines.append(f"| Perfusion, one concept | {edited / 1e9:.3f} GF | {edited / step:.3%} |")
    lines.append("| learned words, Stage Prompts, ProSpect, ED-LoRA, AlignIT, KronA, Custom Diffusion | 0 | 0 % |")
    print("\n".join(lines))
    print(f"\naim for NeTI: at most {GOAL:.0%}")
    sys.exit(made / step > GOAL)


if __name__ == "__main__":
    main()

"""Golden Noise: a start noise that fits the prompt, from a small network (NPNet)."""

from comfy_api.latest import io

from .. import schema
from .golden_noise import DEVICES, LONG_PROMPTS, SIZE_MODES, noise_improver
from .golden_noise_model import attach_golden_noise
from .golden_noise_source import GoldenNoise
from .npnet_wire import NPNet


def _choices_of_both():
    """The inputs that both forms of Golden Noise share, in their order."""
    return [
        NPNet.Input("npnet", tooltip="From Load NPNet."),
        io.Conditioning.Input("conditioning", tooltip="The positive prompt; the negative one is never read."),
        io.Float.Input(
            "strength",
            default=1.0,
            min=0.0,
            max=1.5,
            step=0.05,
            tooltip="0 is the plain noise, bit for bit; 1 is as published. Lower it if colours or contrast get too "
            "strong.",
        ),
        io.Combo.Input(
            "size_mode",
            options=list(SIZE_MODES),
            default="tile",
            tooltip="For pictures other than 1024 x 1024: tile keeps your noise and improves it in windows, resize "
            "stretches a square of noise (which repeats neighbouring values), off leaves the noise plain.",
            **schema.ADVANCED,
        ),
        io.Combo.Input(
            "long_prompt",
            options=list(LONG_PROMPTS),
            default="truncate",
            tooltip="For prompts of more than 77 tokens: truncate reads the first 77, average takes the mean over all "
            "chunks, recurse improves chunk after chunk (a strong change).",
            **schema.ADVANCED,
        ),
        io.Combo.Input(
            "device",
            options=list(DEVICES),
            default="cpu",
            tooltip="cpu takes under a second and gives the same noise on every machine; gpu is faster for batches.",
            **schema.ADVANCED,
        ),
    ]


class GoldenNoiseNode(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema.Schema(
            node_id="PersonalizationGoldenNoise",
            display_name="Golden Noise",
            category="personalization/npnet",
            description="Fits the start noise to the prompt with an NPNet, same seed, same steps: according to its "
            "paper, objects and counts are right more often. For SamplerCustomAdvanced, between Random Noise and the "
            "sampler.",
            search_aliases=["NPNet", "noise prompt", "initial noise"],
            inputs=[io.Noise.Input("noise", tooltip="The plain noise, from Random Noise."), *_choices_of_both()],
            outputs=[
                io.Noise.Output(tooltip="The golden noise, for a latent of any size."),
                io.String.Output(display_name="report", tooltip="How much of the noise changes, in one sentence."),
            ],
        )

    @classmethod
    @schema.within_limits()
    def execute(cls, noise, npnet, conditioning, strength, size_mode, long_prompt, device) -> io.NodeOutput:
        improver = noise_improver(npnet, conditioning, strength, size_mode, long_prompt, device)
        golden = GoldenNoise(noise, improver)
        return io.NodeOutput(golden, golden.report())


class GoldenNoiseModel(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema.Schema(
            node_id="PersonalizationGoldenNoiseModel",
            display_name="Golden Noise (KSampler)",
            category="personalization/npnet",
            description="Golden Noise for the plain KSampler, which has no noise socket: the same picture as with "
            "Golden Noise and SamplerCustomAdvanced. It acts only at full denoise.",
            search_aliases=["NPNet", "noise prompt", "initial noise", "golden noise"],
            inputs=[
                io.Model.Input("model", tooltip="The checkpoint, with any LoRAs and other patches."),
                *_choices_of_both(),
            ],
            outputs=[io.Model.Output(tooltip="The checkpoint, which now starts from golden noise.")],
        )

    @classmethod
    @schema.within_limits()
    def execute(cls, model, npnet, conditioning, strength, size_mode, long_prompt, device) -> io.NodeOutput:
        improver = noise_improver(npnet, conditioning, strength, size_mode, long_prompt, device)
        return io.NodeOutput(attach_golden_noise(model, improver))


NODES = [GoldenNoiseNode, GoldenNoiseModel]

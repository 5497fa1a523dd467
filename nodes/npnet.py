"""Golden Noise: a start noise that fits the prompt, from a small network (NPNet) or from the model itself."""

from comfy_api.latest import io

from . import v3
from .host.model_files import choices, file_names, stamp, valid
from .host.npnet import DEVICES, LONG_PROMPTS, SIZE_MODES, GoldenNoise, improvement_of
from .host.npnet_file import KINDS, load_npnet
from .host.npnet_model import attach_golden_noise
from .host.redenoise import Redenoised

NPNet = io.Custom("PERSONALIZATION_NPNET")


class NPNetLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        files = choices(file_names(*KINDS), KINDS[0])
        return v3.Schema(
            node_id="PersonalizationNPNetLoader",
            display_name="Load NPNet",
            category="personalization/npnet",
            description="Loads the small network of Golden Noise (about 120 MB). Files lie in models/npnet or "
            "models/npnets: sdxl.pth, dreamshaper.pth, dit.pth, or the same as safetensors.",
            search_aliases=["golden noise", "noise prompt network", "NPNet"],
            inputs=[
                io.Combo.Input(
                    "npnet_file",
                    options=files,
                    default=files[0],
                    tooltip="The network made for your checkpoint's family: sdxl for SDXL, dreamshaper for its turbo "
                    "model, dit for Hunyuan-DiT. SD1.5 has none: take Re-denoise.",
                )
            ],
            outputs=[NPNet.Output(display_name="npnet", tooltip="The network, for Golden Noise.")],
        )

    @classmethod
    def validate_inputs(cls, npnet_file=None):
        return valid("npnet_file", npnet_file, *KINDS)

    @classmethod
    def fingerprint_inputs(cls, npnet_file=None):
        return stamp([npnet_file], *KINDS)

    @classmethod
    def execute(cls, npnet_file) -> io.NodeOutput:
        return io.NodeOutput(load_npnet(npnet_file))


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
            tooltip="0 is the plain noise bit for bit, 1 as published; lower it if colours or contrast run away.",
        ),
        io.Combo.Input(
            "size_mode",
            options=list(SIZE_MODES),
            default="tile",
            tooltip="For pictures other than 1024 x 1024: tile keeps your noise as it is and improves it in windows, "
            "resize stretches a square (copies neighbouring values), off leaves the noise plain.",
            **v3.ADVANCED,
        ),
        io.Combo.Input(
            "long_prompt",
            options=list(LONG_PROMPTS),
            default="truncate",
            tooltip="For prompts of more than 77 tokens: truncate reads the first 77, average takes the mean over all "
            "parts, recurse improves part after part (strong).",
            **v3.ADVANCED,
        ),
        io.Combo.Input(
            "device",
            options=list(DEVICES),
            default="cpu",
            tooltip="cpu takes under a second and gives the same noise everywhere; gpu is faster for batches.",
            **v3.ADVANCED,
        ),
    ]


class GoldenNoiseNode(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return v3.Schema(
            node_id="PersonalizationGoldenNoise",
            display_name="Golden Noise",
            category="personalization/npnet",
            description="Improves the start noise for the prompt with an NPNet: same seed, same steps, more often "
            "right on objects and counts. For SamplerCustomAdvanced, between Random Noise and the sampler.",
            search_aliases=["NPNet", "noise prompt", "initial noise"],
            inputs=[io.Noise.Input("noise", tooltip="The plain noise, from Random Noise."), *_choices_of_both()],
            outputs=[
                io.Noise.Output(tooltip="The golden noise, of any latent's size."),
                io.String.Output(display_name="report", tooltip="How much of the noise changes, in one sentence."),
            ],
        )

    @classmethod
    def execute(cls, noise, npnet, conditioning, strength, size_mode, long_prompt, device) -> io.NodeOutput:
        improvement = improvement_of(npnet, conditioning, strength, size_mode, long_prompt, device)
        golden = GoldenNoise(noise, improvement)
        return io.NodeOutput(golden, golden.report())


class GoldenNoiseModel(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return v3.Schema(
            node_id="PersonalizationGoldenNoiseModel",
            display_name="Golden Noise (KSampler)",
            category="personalization/npnet",
            description="Golden Noise for the plain KSampler, which has no noise socket: the same picture as with "
            "Golden Noise and SamplerCustomAdvanced. Acts at full denoise only.",
            search_aliases=["NPNet", "noise prompt", "initial noise", "golden noise"],
            inputs=[
                io.Model.Input("model", tooltip="The checkpoint, with LoRAs and other patches as you like."),
                *_choices_of_both(),
            ],
            outputs=[io.Model.Output(tooltip="The checkpoint, which now starts from golden noise.")],
        )

    @classmethod
    def execute(cls, model, npnet, conditioning, strength, size_mode, long_prompt, device) -> io.NodeOutput:
        improvement = improvement_of(npnet, conditioning, strength, size_mode, long_prompt, device)
        return io.NodeOutput(attach_golden_noise(model, improvement))


class Redenoise(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return v3.Schema(
            node_id="PersonalizationRedenoise",
            display_name="Re-denoise",
            category="personalization/npnet",
            description="Golden noise without any network file: the model takes one step with strong guidance and one "
            "back with weak guidance. For SD1.5, SD2.x and SDXL at any size; costs about three UNet calls.",
            search_aliases=["golden noise", "initial noise", "inversion"],
            inputs=[
                io.Noise.Input("noise", tooltip="The plain noise, from Random Noise."),
                io.Model.Input("model", tooltip="The model that will sample, with all its patches."),
                io.Conditioning.Input("positive", tooltip="The prompt."),
                io.Conditioning.Input("negative", tooltip="The negative prompt."),
                io.Float.Input(
                    "guidance",
                    default=5.5,
                    min=0.0,
                    max=30.0,
                    step=0.1,
                    tooltip="CFG of the step forward: 5.5 for SDXL, 3.5 for turbo models, 7.5 for SD1.5.",
                ),
                io.Float.Input(
                    "inverse_guidance",
                    default=1.0,
                    min=0.0,
                    max=30.0,
                    step=0.1,
                    tooltip="CFG of the step back; the difference to guidance is what pulls towards the prompt.",
                ),
                io.Int.Input(
                    "steps",
                    default=50,
                    min=2,
                    max=1000,
                    tooltip="How small the step is: one of so many. 50 changes a little, 10 a lot. The steps of your "
                    "sampler do not matter here.",
                    **v3.ADVANCED,
                ),
                io.Int.Input(
                    "repeats",
                    default=1,
                    min=1,
                    max=20,
                    tooltip="How often to go forward and back; each time costs three UNet calls.",
                    **v3.ADVANCED,
                ),
            ],
            outputs=[io.Noise.Output(tooltip="The golden noise, for SamplerCustomAdvanced.")],
        )

    @classmethod
    def execute(cls, noise, model, positive, negative, guidance, inverse_guidance, steps, repeats) -> io.NodeOutput:
        return io.NodeOutput(Redenoised(noise, model, positive, negative, guidance, inverse_guidance, steps, repeats))


NODES = [NPNetLoader, GoldenNoiseNode, GoldenNoiseModel, Redenoise]

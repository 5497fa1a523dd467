"""Loads the network of Golden Noise."""

from comfy_api.latest import io

from .. import schema
from ..files.model_files import stamp, valid
from ..widgets import file_input
from .npnet_file import NPNET_KINDS, load_npnet
from .npnet_wire import NPNet


class NPNetLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema.Schema(
            node_id="PersonalizationNPNetLoader",
            display_name="Load NPNet",
            category="personalization/npnet",
            description="Loads the small network of Golden Noise (119 MB). Its files go in models/npnet or "
            "models/npnets: sdxl.pth, dreamshaper.pth, dit.pth, or safetensors copies.",
            search_aliases=["golden noise", "noise prompt network", "NPNet"],
            inputs=[
                file_input(
                    "npnet_file",
                    "The network made for your checkpoint's family: sdxl for SDXL, dreamshaper for "
                    "DreamShaper XL turbo, dit for Hunyuan-DiT. SD1.5 has none: use Re-denoise.",
                    *NPNET_KINDS,
                )
            ],
            outputs=[NPNet.Output(display_name="npnet", tooltip="The network, for Golden Noise.")],
        )

    @classmethod
    def validate_inputs(cls, npnet_file=None):
        return valid("npnet_file", npnet_file, *NPNET_KINDS)

    @classmethod
    def fingerprint_inputs(cls, npnet_file=None):
        return stamp([npnet_file], *NPNET_KINDS)

    @classmethod
    def execute(cls, npnet_file) -> io.NodeOutput:
        return io.NodeOutput(load_npnet(npnet_file))


NODES = [NPNetLoader]

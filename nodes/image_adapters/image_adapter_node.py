"""Image adapters: small networks that let a model read pictures as it reads a prompt. The loader."""

from comfy_api.latest import io

from .. import schema
from ..files.model_files import stamp, valid
from ..widgets import file_input
from .image_adapter import ADAPTER_KINDS, read_image_adapter
from .image_adapter_wire import ImageAdapterSocket


class ImageAdapterLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema.Schema(
            node_id="PersonalizationImageAdapterLoader",
            display_name="Load Image Adapter",
            category="personalization/mip_adapter",
            description="Loads a MIP-Adapter, IP-Adapter, FaceID, InstantID or StoryMaker file from "
            "models/ipadapter, for SD1.5, SD2.x or SDXL. The type is detected from the file.",
            search_aliases=["IP-Adapter", "IPAdapter", "MIP-Adapter", "image prompt"],
            inputs=[
                file_input(
                    "adapter_file",
                    "The adapter made for your checkpoint's family: model_sdxl or model_sdxl_plus of "
                    "MIP-Adapter for SDXL, any ip-adapter file for SD1.5; files of faces for their own nodes.",
                    *ADAPTER_KINDS,
                )
            ],
            outputs=[
                ImageAdapterSocket.Output(display_name="adapter", tooltip="The adapter, for the node of its kind.")
            ],
        )

    @classmethod
    def validate_inputs(cls, adapter_file=None):
        return valid("adapter_file", adapter_file, *ADAPTER_KINDS)

    @classmethod
    def fingerprint_inputs(cls, adapter_file=None):
        return stamp([adapter_file], *ADAPTER_KINDS)

    @classmethod
    def execute(cls, adapter_file) -> io.NodeOutput:
        return io.NodeOutput(read_image_adapter(adapter_file))


NODES = [ImageAdapterLoader]

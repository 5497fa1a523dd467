"""Loads SAM, the network behind Subject Mask."""

from comfy_api.latest import io

from .. import schema
from ..files.model_files import stamp, valid
from ..widgets import file_input
from .sam_file import SAM_KINDS, load_sam
from .sam_wire import SAMSocket


class SAMLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema.Schema(
            node_id="PersonalizationSAMLoader",
            display_name="Load SAM",
            category="personalization/masks",
            description="Loads SAM (Segment Anything, 2023) for Subject Mask: sam_vit_b_01ec64.pth (375 MB) and its "
            "larger versions, or transformers' model.safetensors. Files go in models/sams.",
            search_aliases=["segment anything", "PerSAM", "sam_vit"],
            inputs=[
                file_input(
                    "sam_file",
                    "ViT-B is enough for most subjects; ViT-H is finer and takes six times the work. "
                    "SAM-HQ files are read as SAM; MobileSAM, SAM 2 and SAM 3 are other networks.",
                    *SAM_KINDS,
                )
            ],
            outputs=[SAMSocket.Output(display_name="sam", tooltip="The network, for Subject Mask.")],
        )

    @classmethod
    def validate_inputs(cls, sam_file=None):
        return valid("sam_file", sam_file, *SAM_KINDS)

    @classmethod
    def fingerprint_inputs(cls, sam_file=None):
        return stamp([sam_file], *SAM_KINDS)

    @classmethod
    def execute(cls, sam_file) -> io.NodeOutput:
        return io.NodeOutput(load_sam(sam_file))


NODES = [SAMLoader]

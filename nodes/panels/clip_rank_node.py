"""CLIP Rank: pictures in the order of their likeness to a text or to references."""

from comfy_api.latest import io

from .. import schema
from ..host.choices import check_listed
from ..references.references_wire import References
from .clip_rank import RANKED_BY, ranked


class CLIPRank(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema.Schema(
            node_id="PersonalizationCLIPRank",
            display_name="CLIP Rank",
            category="personalization/panels",
            description="Sorts pictures by their likeness to a text, to references or to both, as CLIP sees it: "
            "chooses among results, or picks references for a Panel Grid.",
            search_aliases=["sort images", "best of", "CLIP score", "IP-Prompter"],
            inputs=[
                io.ClipVision.Input(
                    "clip_vision",
                    tooltip="ViT-bigG for SDXL's CLIP, ViT-H for SD2.x's, ViT-L for a clip_l file. An encoder that "
                    "belongs to another CLIP but has the same width gives meaningless scores, without a warning.",
                ),
                io.Image.Input("images", tooltip="The pictures to sort."),
                io.String.Input(
                    "text",
                    default="",
                    multiline=True,
                    tooltip="What the pictures should show. With several lines and by text, each line picks the three "
                    "pictures most like it, none twice.",
                ),
                io.Combo.Input(
                    "by",
                    options=list(RANKED_BY),
                    default="text",
                    tooltip="text: likeness to the text. references: mean likeness to the references. mean: both, "
                    "equally.",
                ),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip="Reads the text; it must be of the same CLIP as clip_vision. SD1.5 checkpoints lack the "
                    "projection that this needs.",
                ),
                References.Input(
                    "references", optional=True, tooltip="References to compare with; those of strength 0 are left out."
                ),
                io.Image.Input(
                    "reference_images", optional=True, tooltip="Pictures to compare with, beside the references."
                ),
            ],
            outputs=[
                io.Image.Output(display_name="images", tooltip="The pictures, best first."),
                io.String.Output(display_name="scores", tooltip="Each picture's number and score, best first."),
            ],
        )

    @classmethod
    def execute(cls, clip_vision, images, text, by, clip=None, references=(), reference_images=None) -> io.NodeOutput:
        check_listed("by", by, RANKED_BY)
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        shown = [reference.image for reference in references or () if reference.strength]
        if reference_images is not None:
            shown.append(reference_images)
        return io.NodeOutput(*ranked(clip_vision, images, lines, by, clip, shown))


NODES = [CLIPRank]

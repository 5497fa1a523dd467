"""Faces: the loader of face networks, references from a picture of several people, keypoint pictures."""

from comfy_api.latest import io

from .. import schema
from ..references.references_wire import References
from .face_networks import PROVIDERS, load_face_analysis
from .face_packs import check_pack, pack_changed, pack_choices
from .face_wire import FaceAnalysisSocket
from .group_faces import ORDERS, face_references, keypoints_of


class FaceAnalysisLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        packs = pack_choices()
        return schema.Schema(
            node_id="PersonalizationFaceAnalysisLoader",
            display_name="Load Face Analysis",
            category="personalization/faces",
            description="Loads insightface's networks that find and recognise faces, from models/insightface. They are "
            "for non-commercial research only, and this node never downloads any. Needs the packages insightface and "
            "onnxruntime.",
            search_aliases=["insightface", "antelopev2", "buffalo_l", "face recognition", "InstantID", "FaceID"],
            inputs=[
                io.Combo.Input(
                    "face_models",
                    options=packs,
                    default=packs[0],
                    tooltip="A folder with a detection and a recognition network: antelopev2 for InstantID, buffalo_l "
                    "for FaceID and StoryMaker.",
                ),
                io.Combo.Input(
                    "provider",
                    options=list(PROVIDERS),
                    default="cpu",
                    tooltip="Where onnxruntime runs the networks. The CPU takes under a second per picture, once; the "
                    "others need the matching onnxruntime package.",
                    **schema.ADVANCED,
                ),
            ],
            outputs=[
                FaceAnalysisSocket.Output(
                    display_name="face_analysis", tooltip="The networks, for all nodes that read faces."
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, face_models=None):
        return check_pack(face_models)

    @classmethod
    def fingerprint_inputs(cls, face_models=None, provider=None):
        return f"{pack_changed(face_models)} {provider}"

    @classmethod
    def execute(cls, face_models, provider) -> io.NodeOutput:
        return io.NodeOutput(load_face_analysis(face_models, provider))


class FaceReferences(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema.Schema(
            node_id="PersonalizationFaceReferences",
            display_name="Add Faces",
            category="personalization/faces",
            description="Turns a picture of one or several people into references: one per face, each with its word, a "
            "crop around the face, and the place of the face in the picture as its region.",
            search_aliases=["group photo", "face crop", "several people", "faces to references"],
            inputs=[
                FaceAnalysisSocket.Input("face_analysis", tooltip="From Load Face Analysis."),
                io.Image.Input("image", tooltip="A picture of the people; their faces should be clear and not small."),
                io.String.Input(
                    "words",
                    default="",
                    tooltip="The prompt's word for each face, in the order below, separated by commas: woman, man. "
                    "Empty: none has a word.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.05,
                    tooltip="The strength of all of these references: 0 is off, 1 as published.",
                ),
                io.Combo.Input(
                    "order",
                    options=list(ORDERS),
                    default=ORDERS[0],
                    tooltip="Which face comes first and takes the first word.",
                ),
                io.Int.Input(
                    "max_faces",
                    default=0,
                    min=0,
                    max=64,
                    tooltip="Number of faces per picture at most, largest first. 0: all.",
                ),
                io.Float.Input(
                    "margin",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.1,
                    tooltip="What a crop shows around the face on each side, in sizes of the face: 0 is the face "
                    "alone, 1 head and shoulders.",
                    **schema.ADVANCED,
                ),
                References.Input(
                    "references", optional=True, tooltip="Further references, from the node before this one."
                ),
            ],
            outputs=[
                References.Output(display_name="references", tooltip="All references so far, these faces last."),
                io.Image.Output(display_name="crops", tooltip="The crops of these faces, in the order of the chain."),
                io.Int.Output(display_name="count", tooltip="The number of these faces."),
            ],
        )

    @classmethod
    @schema.within_limits()
    def execute(cls, face_analysis, image, words, strength, order, max_faces, margin, references=()) -> io.NodeOutput:
        found, crops = face_references(
            face_analysis, image, words, order, most=max_faces, margin=margin, strength=strength
        )
        return io.NodeOutput((*(references or ()), *found), crops, len(found))


class FaceKeypoints(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema.Schema(
            node_id="PersonalizationFaceKeypoints",
            display_name="Face Keypoints",
            category="personalization/faces",
            description="Draws the five points of each face in a picture, as InstantID's IdentityNet reads them, and "
            "gives a mask for each face.",
            search_aliases=["kps", "InstantID keypoints", "face mask", "face landmarks"],
            inputs=[
                FaceAnalysisSocket.Input("face_analysis", tooltip="From Load Face Analysis."),
                io.Image.Input("image", tooltip="A picture of the people, at the size of the result."),
                io.Int.Input(
                    "faces",
                    default=0,
                    min=0,
                    max=64,
                    tooltip="Number of faces per picture, largest first. 0: all.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="keypoints", tooltip="The points on black, one picture per picture."),
                io.Mask.Output(
                    display_name="masks",
                    tooltip="One mask per face, left to right: its box and a little around it. Use one as the region "
                    "of a reference.",
                ),
            ],
        )

    @classmethod
    @schema.within_limits()
    def execute(cls, face_analysis, image, faces) -> io.NodeOutput:
        return io.NodeOutput(*keypoints_of(face_analysis, image, faces))


NODES = [FaceAnalysisLoader, FaceReferences, FaceKeypoints]

"""Whole numbers beyond the limits of their widgets, which the host lets through where they come over a wire."""

import pytest
import torch
from support.models import execute, tiny_model
from support.references import PixelVAE, prompt

from pack.nodes.concept_conductor.concept_conductor_node import ConceptConductor
from pack.nodes.editing.pilot_node import PILOT
from pack.nodes.editing.subject_crop_node import SubjectCrop, SubjectPaste
from pack.nodes.faces.faces_node import FaceKeypoints, FaceReferences
from pack.nodes.golden_noise.npnet_training_node import NoisePairs, TrainNPNet
from pack.nodes.golden_noise.redenoise_node import Redenoise
from pack.nodes.masks.box_mask_node import BoxMask
from pack.nodes.masks.find_concepts_node import FindConcepts
from pack.nodes.masks.layout_mask_node import LayoutMask
from pack.nodes.panels.panel_node import PanelGrid
from pack.nodes.resadapter.resadapter_node import Resolution
from pack.nodes.training.refine_word_node import RefineWord
from pack.nodes.training.training_pictures_node import ClassPicturesNode

NUMBERS = {
    BoxMask: ("pixel_width", "pixel_height"),
    FaceReferences: ("max_faces",),
    FaceKeypoints: ("faces",),
    LayoutMask: ("clusters",),
    ConceptConductor: ("kmeans_restarts", "inversion_steps", "cache_mb"),
    FindConcepts: ("least", "max_side"),
    Redenoise: ("steps", "repeats"),
    NoisePairs: ("seed", "count", "width", "height", "steps"),
    TrainNPNet: ("steps", "batch_size", "seed"),
    ClassPicturesNode: ("count", "width", "height", "steps", "seed"),
    RefineWord: ("steps",),
    PILOT: ("operations", "interval", "seed"),
    SubjectCrop: ("size", "grow"),
    SubjectPaste: ("feather",),
    PanelGrid: ("tile_width", "tile_height"),
    Resolution: ("custom_width", "custom_height", "batch_size"),
}


@pytest.mark.parametrize(
    ("node", "name"), [(node, name) for node, names in NUMBERS.items() for name in names], ids=lambda value: str(value)
)
def test_numbers_beyond_their_limits(node, name):
    model = tiny_model()
    text = prompt(model, 1)
    inputs = {"model": model, "vae": PixelVAE(), "layout_image": torch.rand(1, 64, 64, 3), "layout_positive": text}
    inputs |= {"positive": text, "negative": text, "noise": None, "adapter_set": "none", "aspect": "custom"}
    inputs |= {"face_analysis": None, "image": torch.rand(1, 64, 64, 3), "images": torch.rand(1, 64, 64, 3)}
    inputs |= {
        "mask": torch.ones(1, 64, 64),
        "clip": None,
        "prompt": "",
        "crop": None,
        "edited": torch.rand(1, 64, 64, 3),
    }
    known = {socket.id: socket for socket in node.define_schema().inputs}
    beyond = [known[name].max + 1, 10**5000]
    # small sides are rounded up
    beyond += [] if name.startswith("custom") else [known[name].min - 1, -(10**5000)]
    for value in beyond:
        with pytest.raises(ValueError, match=f"^{name} is .*; enter a number from {known[name].min} to"):
            execute(node, **{key: one for key, one in inputs.items() if key in known} | {name: value})

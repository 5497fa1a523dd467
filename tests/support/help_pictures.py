"""Pictures on help pages: the thumbnail of a template that shows what the node does, beside the page."""

import re
import shutil

from support.help_pages import FOLDER

WORKFLOWS = FOLDER.parents[2] / "workflows"
# {node, without its prefix: template}
SHOWN = {
    "MRSA": "Pocket references",
    "DreamTuner": "DreamTuner",
    "ReferenceOnly": "Reference Only",
    "ReferenceGuidance": "Reference Guidance",
    "ConceptConductor": "Pocket concepts",
    "MIPAdapter": "Pocket image prompts",
    "FaceReferences": "Faces",
    "FaceID": "FaceID",
    "InstantID": "Two people",
    "StoryMaker": "StoryMaker",
    "EDLoRALoader": "Pocket LoRA and ED-LoRA",
    "StagePrompts": "Pocket stage prompts",
    "AlignIT": "AlignIT",
    "NeTILoader": "Pocket words",
    "KronALoader": "Pocket words",
    "CustomDiffusionLoader": "Pocket words",
    "VisCtrl": "Replace a subject",
    "PILOT": "Inpaint with any model",
    "SubjectCrop": "Edit a subject",
    "PanelGrid": "Panels",
    "FindConcepts": "Find concepts",
    "Train": "Train a LoRA",
    "TrainScene": "Train a scene",
    "GoldenNoise": "Pocket golden noise",
    "Redenoise": "Pocket golden noise",
    "ResAdapter": "Pocket sizes",
    "PocketModel": "Pocket Model",
}
# what a picture shows that the template does not draw as it stands
SAID = {
    "AlignIT": "A concept of Custom Diffusion on Pocket Model: alone, and with AlignIT",
    "Faces": "The idea as a drawing: a face found in a picture becomes a reference with its word",
    "FaceID": "The idea as a drawing: a photo's face for a word of the prompt",
    "Two people": "The idea as a drawing: two faces, each with its word and place",
    "StoryMaker": "The idea as a drawing: a person's face and clothes for words of the prompt",
    "Reference Guidance": "What the template Reference Guidance draws: with the reference alone, and guided by it",
    "Pocket sizes": "Half the size on Pocket Model: without ResAdapter and Golden Noise, and with both",
}


def file_of(template):
    """The name of the picture beside the pages: without blanks, which Markdown does not take."""
    return template.lower().replace(" ", "_") + ".jpg"


def with_picture(page, template):
    """The page with the picture behind what the node is for, once, and with what is said of it now."""
    said = SAID.get(template, f"What the template {template} draws")
    line = f"![{said}]({file_of(template)})"
    shown, found = re.subn(rf"!\[[^\]]*\]\({re.escape(file_of(template))}\)", lambda _: line, page)
    if found:
        return shown
    title, what_for, rest = page.split("\n\n", 2)
    return "\n\n".join((title, what_for, line, rest))


def copy(template):
    """Puts the thumbnail of a template beside the pages that show it, if any does."""
    if template in SHOWN.values():
        shutil.copyfile(WORKFLOWS / f"{template}.jpg", FOLDER / file_of(template))

"""What the notes of the templates advise, done on a real server with the pocket model: no advice ends in an error.

Each row of ADVICE quotes a note, so that a note cannot change without its row; notes that say "bypass", "mute",
"replace" and the like must be quoted by one.
"""

import os
import re
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from setup.host_server import Server
from support import canvas, canvas_edits
from support.canvas_edits import added, bypassed, changed, exchanged, muted
from support.pocket_twin import pocket_twin
from support.small_runs import api_twin, equal, painted, read

WORKFLOWS = Path(__file__).parents[2] / "workflows"
# Verbs of advice that changes the graph, not a value alone.
CHANGES = re.compile(r"\bmute\b|\bbypass\b|\breplace\b|\bdelete\b|\bdisconnect\b|\bput \*\*|Load Image", re.I)
# a picture, and one with its subject painted in the Mask Editor
PICTURE, MASKED = "mine.png", "masked.png"
# what Convert ED-LoRA and Export ResAdapter write in their templates
CONVERTED, WORDS, EXPORTED = (
    "chow_dog_lora.safetensors",
    "chow_dog_lora_words.safetensors",
    "resadapter_v2_sd1.5.safetensors",
)


def a_picture(graph, info, title):
    """Load Image in the place of Sample Picture."""
    return exchanged(graph, title, "LoadImage", image=PICTURE)


def masked_pictures(graph, info, *titles):
    """Load Image with a mask in the place of each of these Sample Pictures."""
    for title in titles:
        graph = exchanged(graph, title, "LoadImage", image=MASKED)
    return graph


def a_box(graph, info, *subjects):
    """A region for each of these references."""
    for k, subject in enumerate(subjects):
        sides = {"x": 0.5 * k, "y": 0.0, "width": 0.5, "height": 1.0, "pixel_width": 64, "pixel_height": 64}
        graph = added(graph, f"Box {k}", "PersonalizationBoxMask", **sides, feather=0.1)
        graph = changed(graph, **{subject.replace(" ", "_"): {"region": (f"Box {k}", 0)}})
    return graph


def plain_lora(graph, info, title, file):
    """Load LoRA (Model and CLIP) in the place of another loader of MODEL and CLIP."""
    return exchanged(
        graph, title, "LoraLoader", model=..., clip=..., lora_name=file, strength_model=0.7, strength_clip=0.7
    )


def before_ed_lora(graph, info):
    """Load LoRA (Model and CLIP) with the converted file before Load ED-LoRA, which gets the words."""
    title = "The same concept, as it is"
    node = graph[canvas_edits.number_of(graph, title)]
    inputs = {"model": node["inputs"]["model"], "clip": node["inputs"]["clip"]}
    graph = added(graph, "LoRA", "LoraLoader", **inputs, lora_name=CONVERTED, strength_model=0.7, strength_clip=0.7)
    links = {"model": ("LoRA", 0), "clip": ("LoRA", 1), "edlora_file": WORDS}
    return muted(changed(graph, **{title.replace(" ", "_"): links}), "Convert ED-LoRA", "Where it was written")


def without_lora(graph, info):
    """Pocket Model straight to the left heart."""
    return changed(graph, Add_the_left_heart={"model": ("Pocket Model", 0)})


def of_the_new_lora(graph, info):
    """Load LoRA with the exported file in the place of ResAdapter, without what showed its report."""
    graph = muted(graph, "What was applied", "Export ResAdapter", "Where it was written")
    file = {"lora_name": EXPORTED, "strength_model": 1.0}
    return exchanged(graph, "ResAdapter", "LoraLoaderModelOnly", model=..., **file)


def of_my_network(graph, info):
    """The template Golden Noise with the network that the template Golden Noise training wrote."""
    graph = api_twin(WORKFLOWS / "Golden Noise.json")
    return changed(graph, NPNet={"npnet_file": "my_npnet.safetensors"})


def of_the_ksampler(graph, info):
    """The template Golden Noise with its one picture that begins with golden noise."""
    graph = api_twin(WORKFLOWS / "Golden Noise.json")
    return muted(graph, "From plain noise", "Decode #2", "Plain noise, same seed")


def of_my_scene(graph, info):
    """Load Image, with a mask for each of two words painted by hand: here, boxes."""
    box = {"y": 0.0, "width": 0.5, "height": 1.0, "pixel_width": 64, "pixel_height": 64, "feather": 0.0}
    graph = added(graph, "Mine", "LoadImage", image=PICTURE)
    graph = added(graph, "One", "PersonalizationBoxMask", x=0.0, **box)
    graph = added(graph, "Other", "PersonalizationBoxMask", x=0.5, **box)
    graph = added(graph, "Both", "BatchMasksNode")
    graph = changed(graph, Both={"masks.mask0": ("One", 0), "masks.mask1": ("Other", 0)})
    return changed(graph, Scene_Pictures={"image": ("Mine", 0), "masks": ("Both", 0)})


def values(**said):
    return lambda graph, info: changed(graph, **said)


def bypass(*titles):
    return lambda graph, info: bypassed(graph, info, *titles)


def mute(*titles):
    return lambda graph, info: muted(graph, *titles)


def does(edit, *arguments):
    return lambda graph, info: edit(graph, info, *arguments)


TWO, REGIONS, MIP, CONDUCTOR = "Two subjects", "Two subjects in regions", "MIP-Adapter", "Concept Conductor"
FIVE, THREE, SIZES, EXPORT = "Five techniques", "Three techniques", "ResAdapter", "ResAdapter to LoRA"
EACH = "Select any of the five and bypass it"
# (template, words of its note, what they make of its graph)
ADVICE = [
    (TWO, "**Load Image** in place of each Sample Picture", does(a_picture, "Picture of subject 1")),
    (TWO, "lower `weight`, set `blocks` to fine, or raise `start_percent`",
     values(**{"Multi-Reference_Self-Attention": {"weight": 1.0, "blocks": "fine", "start_percent": 0.3}})),
    (TWO, "give each a `region` (Box Mask)", does(a_box, "Subject 1", "Subject 2")),
    (REGIONS, "raise `feather`", values(Left_half={"feather": 0.3})),
    (MIP, "use **Load Image**", does(a_picture, "Picture of subject 1")),
    (MIP, "give each a `region` (Box Mask)", does(a_box, "Object 1", "Object 2")),
    (MIP, "raise `merge_power` to 2 to 4", values(**{"MIP-Adapter": {"merge_power": 4.0}})),
    (MIP, "lower `scale` or raise `start_percent`", values(**{"MIP-Adapter": {"scale": 0.3, "start_percent": 0.5}})),
    (CONDUCTOR, "replace Load ED-LoRA by **Load LoRA (Model and CLIP)**",
     does(plain_lora, "Concept 1: the dog", CONVERTED)),
    (CONDUCTOR, "a Box Mask works too", lambda graph, info: exchanged(
        graph, "Where: the left point", "PersonalizationBoxMask", x=0.0, y=0.0, width=0.5, height=1.0, pixel_width=64,
        pixel_height=64, feather=0.0)),
    (CONDUCTOR, "lower *guidance_weight*", values(Concept_Conductor={"guidance_weight": 3.0})),
    (FIVE, EACH, bypass("Any size: ResAdapter")),
    (FIVE, EACH, bypass("Subject by picture: MRSA")),
    (FIVE, EACH, bypass("Look by picture: MIP-Adapter")),
    (FIVE, EACH, bypass("Concept Conductor")),
    (FIVE, EACH, bypass("Better start: Golden Noise")),
    (THREE, "any of the three can be bypassed", bypass("Any size: ResAdapter")),
    (THREE, "any of the three can be bypassed", bypass("Multi-Reference Self-Attention")),
    (THREE, "any of the three can be bypassed", bypass("Better start: Golden Noise")),
    (SIZES, "select **ResAdapter** and **What was applied** and bypass both", bypass("ResAdapter", "What was applied")),
    (SIZES, "disconnect it from Resolution and set 0.3 to 0.7", values(ResAdapter={"alpha": 0.5})),
    ("Golden Noise", "delete the plain half", mute("From plain noise", "Decode #2", "Plain noise, same seed")),
    ("Golden Noise with KSampler", "Bypass the node to compare", bypass("Golden Noise")),
    ("Golden Noise training", "Mute *Train* and *Report* together", mute("Train", "Report")),
    ("Golden Noise training", "choose **this** checkpoint there, and `my_npnet.safetensors`", does(of_my_network)),
    ("Pocket concepts", "connect *Pocket Model* straight to an Add Concept", does(without_lora)),
    ("Pocket LoRA and ED-LoRA", "*heart_150*, with *heart* in its prompt",
     values(LoRA={"lora": "heart_150"}, Prompt_in_plain_words={"text": "a heart on a purple background"})),
    ("Pocket words", "`strength`: 0 is the model alone", values(KronA={"strength": 0.0})),
    ("Pocket image prompts", "*joint* lets all pictures act", values(**{"MIP-Adapter": {"merge": "joint"}})),
    ("Pocket image prompts", "*pocket: ip_adapter*", values(Image_adapter={"adapter_file": "pocket: ip_adapter"})),
    ("Pocket references", "*pocket_star*", values(Picture_of_the_subject={"picture": "pocket_star"})),
    ("Find concepts", "connect *Load Image*", lambda graph, info: changed(
        added(graph, "Mine", "LoadImage", image=PICTURE), Find_Concepts={"image": ("Mine", 0)})),
    ("Train a LoRA", "Load Image in the place of the sample, with the subject painted in its Mask Editor",
     does(masked_pictures, "The subject: one picture, with its mask")),
    ("Train and conduct", "Load Image in the place of both samples, each with its subject painted in the Mask Editor",
     does(masked_pictures, "Picture of the heart", "Picture of the star")),
    ("Train a word", "*Load Image* and your own checkpoint", does(a_picture, "The picture")),
    ("Train a scene", "*Load Image* in the place of the drawn picture", does(of_my_scene)),
    ("Replace a subject", "**Load Image** for both samples", does(masked_pictures, "Picture", "New subject")),
    ("Re-denoise", "10 a lot", values(**{"Re-denoise": {"steps": 10}})),
]  # fmt: skip
# The same, where the note says that the picture is the one of the template.
EQUAL = [
    ("ED-LoRA to LoRA", "put **Load LoRA (Model and CLIP)**", does(before_ed_lora)),
    (EXPORT, "Delete *What was applied*, and replace ResAdapter by **Load LoRA**", does(of_the_new_lora)),
    ("Golden Noise with KSampler", "the same picture as from the template *Golden Noise*", does(of_the_ksampler)),
]  # fmt: skip
# Their pictures must be chosen by the user; with other ones they run as in their own tests.
WITH_FACES = {"Faces", "FaceID", "InstantID", "StoryMaker", "Two people"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    packs, cpu = {"comfyui-personalization": WORKFLOWS.parent}, not torch.cuda.is_available()
    host, base = os.environ["COMFYUI_PATH"], tmp_path_factory.mktemp("notes")
    with Server(host, sys.executable, base, cpu=cpu, packs=packs) as server:
        yield server


@pytest.fixture(scope="module")
def object_info(server):
    return server.object_info()


@pytest.fixture(scope="module")
def written(server):
    """What templates draw that write files which other steps need; and a picture to load."""
    picture = Image.radial_gradient("L").resize((64, 64)).convert("RGBA")
    picture.save(server.base / "input" / PICTURE)
    # what MaskEditor paints is where alpha is 0
    picture.putalpha(Image.new("L", (64, 64), 255))
    picture.paste((90, 40, 200, 0), (16, 16, 48, 48))
    picture.save(server.base / "input" / MASKED)
    runs = ("ED-LoRA to LoRA", EXPORT, "Golden Noise training", "Golden Noise with KSampler")
    return {name: painted(server, small(name))[0] for name in runs}


def small(template):
    return pocket_twin(api_twin(WORKFLOWS / f"{template}.json"))


def notes_of(template):
    nodes = read(WORKFLOWS / f"{template}.json")["nodes"]
    return [node["widgets_values"][0] for node in nodes if node["type"] == "MarkdownNote"]


def advised(template, words, edit, object_info):
    """The small graph of one row; its words stand in a note, and it is another one than the template's."""
    assert any(words in note for note in notes_of(template))
    graph = pocket_twin(edit(api_twin(WORKFLOWS / f"{template}.json"), object_info))
    assert graph != small(template)
    return graph


def named(rows):
    return [pytest.param(*row, id=f"{row[0]}: {row[1][:40]} {k}") for k, row in enumerate(rows)]


@pytest.mark.slow
@pytest.mark.parametrize(("template", "words", "edit"), named(ADVICE))
def test_advice_runs(template, words, edit, server, object_info, written):
    graph = advised(template, words, edit, object_info)
    drawn, _ = painted(server, graph)
    assert len(drawn) >= len(canvas.shows(graph))


@pytest.mark.slow
@pytest.mark.parametrize(("template", "words", "edit"), named(EQUAL))
def test_it_is_the_same_picture(template, words, edit, server, object_info, written):
    assert equal(painted(server, advised(template, words, edit, object_info))[0], written[template])


@pytest.mark.parametrize("path", sorted(WORKFLOWS.glob("*.json")), ids=lambda path: path.stem)
def test_all_advice_that_changes_the_graph_is_tried(path):
    quotes = [words for template, words, _ in [*ADVICE, *EQUAL] if template == path.stem]
    lines = [line for note in notes_of(path.stem) for line in note.splitlines() if CHANGES.search(line)]
    if path.stem not in WITH_FACES:
        assert [line for line in lines if not any(words in line for words in quotes)] == []

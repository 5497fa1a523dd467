"""What feeds the nodes of people in tests: recorded faces, words, vision encoders and adapters."""

from types import SimpleNamespace

import torch
from support.controlnets import identity_net
from support.faces import GivenFaces, face
from support.golden_data import case
from support.image_prompts import StubVision, TinyWords, WordCLIP, references_of
from support.models import execute
from support.references import width_of

from pack.nodes.faces import analysis
from pack.nodes.image_adapters.image_adapter import adapter_from
from pack.nodes.image_prompts import mip_adapter
from pack.nodes.image_prompts.faceid_node import FaceID
from pack.nodes.image_prompts.instantid_node import InstantID
from pack.nodes.image_prompts.storymaker_node import StoryMaker
from pack.nodes.references.references_wire import Reference

HIDDEN = "penultimate_hidden_states"


def adapter_of_case(room, name):
    """The ImageAdapter of a recorded weights file."""
    name = name.removesuffix(".safetensors")
    return adapter_from(case(f"{room}/{name}")[0], f"{name}.safetensors")


def y_of(golden):
    """The further conditioning values of a recorded SDXL case."""
    return {"pooled_output": golden["pooled_cond"][:1], "time_ids": golden["time_ids"]} if "time_ids" in golden else {}


def people_words(golden, params):
    """(WordCLIP, a word per person) of a recorded case, with as many tokens as recorded."""
    counts = params.get("phrase_token_counts", [])
    words = [f"person {i}" for i in range(len(counts))]
    table = {
        word: ([100 * (i + 1) + t for t in range(counts[i])], golden["phrase_context"][i][None], y_of(golden))
        for i, word in enumerate(words)
    }
    return WordCLIP(table | {"": ([], golden["context_cond"], y_of(golden))}), words


def give_faces(monkeypatch, faces, empty=None):
    """Lets `faces_of` hand out one given face per picture, and zero pixels look as recorded; returns the stand-in."""
    given = GivenFaces(*([one] for one in faces))
    monkeypatch.setattr(analysis, "faces_of", given)
    stub = SimpleNamespace(**{HIDDEN: empty})
    monkeypatch.setattr(mip_adapter, "encode_pixels", lambda clip_vision, pixels: stub)
    return given


def faceid_case(model, name, monkeypatch, **inputs):
    """(the MODEL after the FaceID node with a recorded case, its tensors, its parameters)."""
    golden, params = case(f"faceid/{name}")
    clip, words = people_words(golden, params)
    faces = [face(embedding) for embedding in golden["face_embeds"]]
    give_faces(monkeypatch, faces, golden.get("clip_penultimate_uncond"))
    views = params.get("faces", 1)
    chain = references_of(words or [""], None if words else [views], params.get("strengths"), golden.get("regions"))
    given = dict(
        adapter=adapter_of_case("faceid", params["weights"]),
        face_analysis=None,
        clip=clip,
        clip_vision=StubVision(golden["clip_penultimate"], HIDDEN) if "clip_penultimate" in golden else None,
        scale=params["scale"],
        structure=params["structure"],
        lora_strength=params["lora_scale"],
        version="2" if params["shortcut"] else "1",
        merge=params.get("merge", "joint"),
        merge_power=params.get("merge_power", 1.0),
        references=chain,
    )
    return execute(FaceID, model=model, **given | inputs)[0], golden, params


def two_people(**fields):
    """A chain of two references with words, for `with_faceid` and its like."""
    return references_of(("a woman", "man"), **fields)


def with_faceid(model, monkeypatch, faces=None, **inputs):
    """The MODEL after the FaceID node, two people with words."""
    kind = "sdxl" if width_of(model) == 48 else "sd15"
    give_faces(
        monkeypatch, faces or [face(torch.randn(512, generator=torch.Generator().manual_seed(i))) for i in (1, 2)]
    )
    given = {
        "adapter": adapter_of_case("faceid", f"weights_{kind}_faceid"),
        "face_analysis": None,
        "clip": TinyWords(model),
        "references": two_people(),
    }
    return execute(FaceID, model=model, **given | inputs)[0]


def instantid_case(model, name, monkeypatch, **inputs):
    """(the MODEL after the InstantID node with a recorded case, its tensors, its parameters)."""
    golden, params = case(f"instantid/{name}")
    clip, words = people_words(golden, params)
    views = params.get("embeds_per_person", [len(golden["face_embeds"])])
    points = golden["keypoints"].reshape(-1, 5, 2)
    size = golden["keypoint_picture"].shape[1:3]
    own = [points[i] for i, count in enumerate(views) for _ in range(count)]
    faces = [face(e, keypoints=five, x=64, y=64) for e, five in zip(golden["face_embeds"], own, strict=True)]
    give_faces(monkeypatch, faces)
    regions = golden.get("regions")
    if "region" in golden:
        regions = golden["region"].float()[None, None] / 255
    control = params["control_scale"]
    given = dict(
        adapter=adapter_of_case("instantid", params["weights"]),
        face_analysis=None,
        clip=clip,
        scale=params["adapter_scale"],
        control_strength=control[0] if isinstance(control, list) else control,
        merge=params.get("merge", "joint"),
        views="joint",
        control_net=identity_net(),
        references=people_of_size(words or [""], views, size, regions),
    )
    return execute(InstantID, model=model, **given | inputs)[0], golden, params


def people_of_size(words, views, size, regions=None):
    """A chain of References with pictures of a size (H, W), so many of each."""
    chain = ()
    for i, word in enumerate(words):
        region = None if regions is None else regions[i]
        region = region if region is None or region.ndim == 3 else region[None]
        chain += (Reference(torch.full((views[i], *size, 3), (i + 1) / 10), word, region=region),)
    return chain


def with_instantid(model, monkeypatch, faces=None, **inputs):
    """The MODEL after the InstantID node, two people with words."""
    give_faces(
        monkeypatch, faces or [face(torch.randn(512, generator=torch.Generator().manual_seed(i))) for i in (1, 2)]
    )
    given = {
        "adapter": adapter_of_case("instantid", "weights"),
        "face_analysis": None,
        "clip": TinyWords(model),
        "control_net": identity_net(),
        "references": two_people(),
    }
    return execute(InstantID, model=model, **given | inputs)[0]


def storymaker_case(model, name, monkeypatch, **inputs):
    """(the MODEL after the StoryMaker node with a recorded case, its tensors, its parameters)."""
    golden, params = case(f"storymaker/{name}")
    give_faces(monkeypatch, [face(e) for e in golden["face_embeds"]])
    # of each person the face, then the body or the clothes
    rows = [row for pair in zip(golden["clip_face"], golden["clip_body"], strict=True) for row in pair]
    words = [f"person {i}" for i in range(params["people"])]
    given = dict(
        adapter=adapter_of_case("storymaker", "weights"),
        face_analysis=None,
        clip_vision=StubVision(rows, HIDDEN),
        scale=params["scale"],
        lora_strength=params["lora_scale"],
        cloth=torch.rand(1, 32, 48, 3) if params["cloth"] else None,
        references=references_of(words, None, params.get("strengths"), golden.get("regions")),
    )
    return execute(StoryMaker, model=model, **given | inputs)[0], golden, params


class SeenVision:
    """Hidden states that depend on the picture's mean colour."""

    def encode_image(self, image, crop=True):
        seed = round(1e4 * float(image.mean()))
        return SimpleNamespace(**{HIDDEN: torch.randn(1, 17, 32, generator=torch.Generator().manual_seed(seed))})


def with_storymaker(model, monkeypatch, faces=None, **inputs):
    """The MODEL after the StoryMaker node, two people."""
    give_faces(
        monkeypatch, faces or [face(torch.randn(512, generator=torch.Generator().manual_seed(i))) for i in (1, 2)]
    )
    given = {
        "adapter": adapter_of_case("storymaker", "weights"),
        "face_analysis": None,
        "clip_vision": SeenVision(),
        "references": two_people(),
    }
    return execute(StoryMaker, model=model, **given | inputs)[0]

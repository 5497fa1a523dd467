"""What a trainer writes goes where README says: a made-up file of each layout, alone and as a concept."""

import re

import comfy.sd
import comfy.utils
import pytest
import torch
from support.clips import encoded, tiny_clip
from support.compare import differ
from support.concepts import conducted, random_concepts, strip
from support.models import execute, sample, tiny_model
from support.references import prompt
from support.weights import patched_weights
from support.word_files import embeddings  # noqa: F401 (fixture)

from pack.nodes.concept_conductor.concepts_node import AddConcept
from pack.nodes.files.told_kinds import kind_of
from pack.nodes.text_contexts.concept_node import ConceptLoader

RANK = 2
PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")


def attentions(model):
    """{diffusers name of a projection: (outputs, inputs)} of a MODEL's attentions."""
    state = model.model.diffusion_model.state_dict()
    found = comfy.utils.unet_to_diffusers(model.model.model_config.unet_config)
    return {
        name.removesuffix(".weight"): tuple(state[key].shape)
        for name, key in found.items()
        if key in state and name.endswith(tuple(f".{one}.weight" for one in PROJECTIONS)) and ".attn" in name
    }


def halves(shape, generator):
    out, inner = shape
    return torch.randn(RANK, inner, generator=generator) * inner**-0.5, torch.randn(out, RANK, generator=generator)


def texts(clip):
    """{name of a projection: its shape} of each of a CLIP's networks."""
    found = []
    for name in ("clip_l", "clip_g"):
        network = getattr(clip.cond_stage_model, name, None)
        if network is not None:
            state = network.transformer.state_dict()
            found.append({key.removesuffix(".weight"): tuple(state[key].shape) for key in state
                          if key.endswith("_proj.weight") and "self_attn" in key})  # fmt: skip
    return found


def lora(model, clip, layout):
    """A LoRA of all attentions in the names of a trainer."""
    generator, file = torch.Generator().manual_seed(0), {}
    for name, shape in attentions(model).items():
        down, up = halves(shape, generator)
        if layout == "kohya":
            stem = f"lora_unet_{name.replace('.', '_')}"
            file |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up, f"{stem}.alpha": torch.tensor(2.0)}
        elif layout == "Break-for-Make":
            file |= {f"unet.{name}.lora.down.weight": down, f"unet.{name}.lora.up.weight": up}
        else:
            start, to = name.rsplit(".attn", 1)
            number, to = to.split(".", 1)
            stem = f"{start}.attn{number}.processor.{to.removesuffix('.0')}_lora"
            stem = f"unet.{stem}" if layout == "diffusers, unet" else stem
            file |= {f"{stem}.down.weight": down, f"{stem}.up.weight": up}
    for number, names in enumerate(texts(clip) if layout in ("kohya", "Break-for-Make") else ()):
        for name, shape in names.items():
            down, up = halves(shape, generator)
            if layout == "kohya":
                stem = f"lora_te{number + 1 if len(texts(clip)) > 1 else ''}_{name.replace('.', '_')}"
                file |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}
            else:
                part = "text_encoder" if not number else "text_encoder_2"
                stem = f"{part}.{name}.lora_linear_layer"
                file |= {f"{stem}.down.weight": down, f"{stem}.up.weight": up}
    return file


def run(model):
    return sample(model, prompt(model, 100), prompt(model, 200), steps=2)


@pytest.mark.parametrize(
    ("layout", "kind"),
    [
        ("kohya", "sd15"),
        ("kohya", "sdxl"),
        ("FaceChain", "sd15"),
        ("diffusers, unet", "sd15"),
    ],
)
def test_loras(layout, kind):
    """Load LoRA changes every attention as the file says, and Concept Conductor takes it as a concept."""
    model, clip = tiny_model(kind), tiny_clip(kind)
    file = lora(model, clip, layout)
    assert kind_of(file) in ("LoRA", "KronA")
    loaded, _ = comfy.sd.load_lora_for_models(model, clip, dict(file), 1.0, 1.0)
    assert len(loaded.patches) == len(attentions(model))
    shown = next(iter(patched_weights(loaded)))
    assert differ(patched_weights(loaded)[shown], model.model.state_dict()[shown]) > 1e-3
    inputs = {"positive": prompt(model, 305), "mask": strip(1, 2), "concepts": random_concepts(model, 1)}
    (chain,) = execute(AddConcept, model=loaded, **inputs)
    assert torch.isfinite(run(conducted(model, chain))).all()


def test_loras_of_which_the_host_reads_the_text_encoders_alone():
    """Break-for-Make: its UNet's names must have `processor` in them, as README says."""
    model, clip = tiny_model("sdxl"), tiny_clip("sdxl")
    file = lora(model, clip, "Break-for-Make")
    loaded, taught = comfy.sd.load_lora_for_models(model, clip, dict(file), 1.0, 1.0)
    assert not loaded.patches and len(taught.patcher.patches) == sum(map(len, texts(clip)))
    named = {re.sub(r"\.(to_\w+)(?:\.0)?\.lora\.", r".processor.\1_lora.", name): t for name, t in file.items()}
    loaded, _ = comfy.sd.load_lora_for_models(model, clip, named, 1.0, 1.0)
    assert len(loaded.patches) == len(attentions(model))


def test_a_whole_checkpoint():
    """DreamBooth: another checkpoint is a concept with a forward pass of its own."""
    model, trained = tiny_model(), tiny_model(seed=3)
    inputs = {"positive": prompt(model, 305), "mask": strip(1, 2), "concepts": random_concepts(model, 1)}
    found = [run(conducted(model, execute(AddConcept, model=one, **inputs)[0])) for one in (trained, model)]
    assert torch.isfinite(found[0]).all() and differ(*found) > 1e-4


def test_a_lora_with_learned_words(embeddings):  # noqa: F811
    """MagiCapture: the LoRA by Load LoRA, its words by Load Concept Words on the CLIP that it gives."""
    model, clip = tiny_model(), tiny_clip()
    loaded, clip = comfy.sd.load_lora_for_models(model, clip, lora(model, clip, "kohya"), 1.0, 1.0)
    torch.save({"<v1>": torch.randn(32), "<v2>": torch.randn(32)}, embeddings / "learned_embeds.bin")
    taught, words = execute(ConceptLoader, clip=clip, concept_file="learned_embeds.bin")
    assert words == "<v1> <v2>" and taught.patcher.patches.keys() == clip.patcher.patches.keys()
    text = encoded(taught, f"a photo of {words}")
    found = sample(loaded, text, encoded(taught, "bad"), steps=1)
    assert torch.isfinite(found).all()
    inputs = {"mask": strip(1, 2), "concepts": random_concepts(model, 1)}
    (chain,) = execute(AddConcept, model=loaded, positive=text, **inputs)
    assert torch.isfinite(run(conducted(model, chain))).all()

"""Golden numbers of published code: bundles of words, ProSpect, NeTI, Perfusion, AlignIT, through the public nodes."""

import pytest
import torch
from support.clips import encoded
from support.compare import relative
from support.golden_data import case
from support.loras import loaded
from support.models import execute, tiny_model
from support.word_files import concept_clip, embeddings, golden_step, golden_trajectory, put  # noqa: F401 (fixture)

from pack.nodes.host.layered_prompts import LAYERS
from pack.nodes.text_contexts.alignit_node import AlignModel, AlignPrompt
from pack.nodes.text_contexts.concept_node import ConceptLoader
from pack.nodes.text_contexts.concept_words import Word, with_words
from pack.nodes.text_contexts.perfusion_node import PerfusionLoader
from pack.nodes.text_contexts.stage_prompts_node import StagePrompts
from pack.nodes.text_contexts.varying_words_node import NeTILoader, ProSpectLoader


def near(ours, golden, limit=1e-4):
    assert (ours - golden).abs().max() < limit


# bundles

BUNDLES = ("cross_initialization", "assets", "a1111", "diffusers", "table")


@pytest.mark.parametrize("kind", ["sd15", "sd2"])
@pytest.mark.parametrize("name", BUNDLES)
def test_bundles(name, kind, embeddings):  # noqa: F811
    golden, params = case("text_concepts/bundles")
    one = params["cases"][name]
    if name == "table":
        (embeddings / "tokenizer").mkdir()
        put(embeddings / "tokenizer", "added_tokens.json", "text_concepts/bundle_table/tokenizer")
        file = put(embeddings, "token_embedding.pth", "text_concepts/bundle_table")
    else:
        file = put(embeddings, one["file"])
    clip, words = execute(ConceptLoader, clip=concept_clip(kind=kind), concept_file=file)
    prompt = one["prompt"]
    if name == "a1111":
        assert words == "<bundle_a1111>"
        prompt = "11 25 <bundle_a1111> 40"
    else:
        assert words.split() == one["words"]
    context = encoded(clip, prompt)[0][0]
    near(context[:, :16], golden[f"{name}/context" + ("" if kind == "sd15" else "_penultimate_norm")])


# ProSpect


def prospect(embeddings, model):  # noqa: F811
    file = put(embeddings, "prospect_concept.pt")
    return execute(ProSpectLoader, model=model, clip=concept_clip(), prospect_file=file, word="<p>")


def stage_texts(case):
    """The public node's inputs for a case's words by rising timesteps."""
    words = case["stage_words_end_first"] or ["*"] * 10
    texts = [case["prompt"].replace("*", word).replace("*", "<p>") for word in reversed(words)]
    return {"prompt": texts[0], **{f"stage_{number}": text for number, text in enumerate(texts, 1)}}


@pytest.mark.parametrize("number", [0, 1, 2])
def test_prospect_contexts(number, embeddings):  # noqa: F811
    golden, params = case("text_concepts/prospect_text")
    model, clip, words = prospect(embeddings, tiny_model())
    assert words == "<p>"
    (conditioning,) = execute(StagePrompts, clip=clip, **stage_texts(params["cases"][number]))
    for stage in range(10):
        middle = 1 - (100 * stage + 50) / 999
        ((tensor, values),) = [e for e in conditioning if e[1]["start_percent"] <= middle <= e[1]["end_percent"]]
        contexts = values.get(LAYERS)
        keys = tensor if contexts is None else contexts.at(100 * stage + 50)[0]
        near(keys[:, :16], golden[f"case{number}/contexts"][stage][None])
        # the fixed words of the file are the word's rows
        fixed = encoded(clip, f"11 25 <p:{10 - stage}> 40")[0][0]
        if number == 1:
            near(fixed[:, :16], golden["case1/contexts"][stage][None])


def test_prospect_trajectory(embeddings):  # noqa: F811
    golden, params = case("text_concepts/prospect_trajectory")
    model, clip, _ = prospect(embeddings, tiny_model())
    (positive,) = execute(StagePrompts, clip=clip, **stage_texts(params))
    negative = encoded(clip, "")
    calls, final = golden_trajectory(model, positive, negative, golden, params)
    assert relative(final, golden["final"]) < 1e-3
    near(calls[0].cond, golden["step0/eps_cond"])
    near(calls[0].uncond, golden["step0/eps_uncond"])


# NeTI


def neti(embeddings, model, truncation=128):  # noqa: F811
    put(embeddings, "neti_learned_embeds.bin")
    file = put(embeddings, "neti_mapper.pt")
    return execute(NeTILoader, model=model, clip=concept_clip(), mapper_file=file, truncation=truncation)


@pytest.mark.parametrize("truncation", [None, 16])
def test_neti_contexts(truncation, embeddings):  # noqa: F811
    golden, params = case("text_concepts/neti_text")
    _, clip, words = neti(embeddings, tiny_model(), truncation or 128)
    assert words == "<teapot>"
    ((_, values),) = encoded(clip, params["prompt"])
    for timestep in params["times"]:
        keys, apart = values[LAYERS].at(float(timestep))
        near(keys[:, :16], golden[f"t{timestep}/trunc{str(truncation).lower()}/k"])
        near(apart[:, :16], golden[f"t{timestep}/trunc{str(truncation).lower()}/v"])


def test_neti_trajectory(embeddings):  # noqa: F811
    golden, params = case("text_concepts/neti_trajectory")
    model, clip, _ = neti(embeddings, tiny_model())
    positive, negative = encoded(clip, params["prompt"]), encoded(clip, params["negative"])
    calls, final = golden_trajectory(model, positive, negative, golden, params)
    assert relative(final, golden["final"]) < 1e-3
    for step, call in enumerate(calls):
        near(call.cond, golden[f"step{step}/eps_cond"], 1e-3)


# Perfusion


@pytest.mark.parametrize("name", ["local", "global"])
def test_perfusion_by_position(name, embeddings):  # noqa: F811
    golden, params = case(f"text_concepts/perfusion_step_{name}")
    file = put(embeddings, params["files"][0])
    settings = {key: params[key] for key in ("beta", "tau", "key_lock")}
    model, clip, words = execute(
        PerfusionLoader, model=tiny_model(), clip=concept_clip(), perfusion_file=file, word="<c>", **settings
    )
    prompt = params["prompt"].replace("{1}", words)
    texts = encoded(clip, prompt), [[golden["context_uncond"], {}]]
    cond, uncond = golden_step(model, *texts, golden["latents"], params["timestep"])
    near(cond, golden["eps_cond"])
    near(uncond, golden["eps_uncond"])
    off = execute(PerfusionLoader, model=tiny_model(), clip=concept_clip(), perfusion_file=file, strength=0.0)[0]
    cond, uncond = golden_step(off, [[golden["context"], {}]], texts[1], golden["latents"], params["timestep"])
    near(cond, golden["eps_cond_without"])


def test_perfusion_by_module(embeddings):  # noqa: F811
    golden, params = case("text_concepts/perfusion_rank1_step")
    file = put(embeddings, params["file"])
    settings = {key: params[key] for key in ("beta", "tau", "key_lock")}
    model, clip, _ = execute(
        PerfusionLoader, model=tiny_model(), clip=concept_clip(), perfusion_file=file, word="<c>", **settings
    )
    positive, negative = encoded(clip, params["prompt"]), [[golden["context_uncond"], {}]]
    near(positive[0][0][:, :16], golden["context"][:, :16])
    cond, uncond = golden_step(model, positive, negative, golden["latents"], params["timestep"])
    near(cond, golden["eps_cond"], 3e-4)
    near(uncond, golden["eps_uncond"], 3e-4)


def test_perfusion_kernels():
    from pack.kernels.gated_edit import concept_outputs, dual_inputs, gates_of, projector, without_concepts

    golden, params = case("text_concepts/perfusion_kernels")

    def edited(numbers):
        inputs, outputs = golden["inputs"][numbers], golden["outputs"][numbers]
        duals, energies = dual_inputs(inputs, golden["C_inv"])
        on = torch.ones(len(inputs))
        similarities = golden["text"] @ duals.float().T
        gates = gates_of(similarities, energies.float(), params["beta"] * on, params["tau"] * on)
        rows = without_concepts(golden["text"], similarities, projector(inputs, duals).float(), on)
        return rows @ golden["weight"].T + concept_outputs(gates, outputs[:, None], on)

    near(edited([0]), golden["single0"], 1e-5)
    near(edited([0, 1, 2]), golden["several_exact"], 1e-5)


# AlignIT


def aligned(params, clip, base_clip):
    texts = {"prompt": params["prompt"], "concept": params["phrase"], "class_word": params["class_phrase"]}
    dummy = params["dummy_prompt"].replace(params["phrase"], "{}")
    return execute(AlignPrompt, clip=clip, base_clip=base_clip, dummy=dummy, **texts)[0]


def test_alignit_words():
    golden, params = case("text_concepts/alignit_words")
    base = concept_clip()
    clip = with_words(base, [Word("<dog>", {"l": golden["word/<dog>"][None]})])
    positive = aligned(params, clip, base)
    assert LAYERS not in positive[0][1]
    sequence = [golden[("context_base", "context_dummy")[own]][:, row] for own, row in params["sequence"]]
    near(positive[0][0][:, :24], torch.stack(sequence, 1))
    negative = [[golden["context_uncond"], {}]]
    cond, uncond = golden_step(tiny_model(), positive, negative, golden["latents"], params["timestep"])
    near(cond, golden["eps_cond"])
    near(uncond, golden["eps_uncond"])


def test_alignit_lora():
    golden, params = case("text_concepts/alignit_lora")
    base = concept_clip()
    clip = with_words(base, [Word("<new1>", {"l": golden["word/<new1>"][None]})])
    model = tiny_model()
    file = {}
    for key, tensor in golden.items():
        if key.startswith("lora/"):
            module, kind, _ = key.removeprefix("lora/").rsplit(".", 2)
            file[f"lora_unet_{module.replace('.', '_')}.{kind}.weight"] = tensor.float()
    customised = loaded(model, file, params["lora_scale"])
    positive = aligned(params, clip, base)
    negative = [[golden["context_uncond"], {}]]
    (patched,) = execute(AlignModel, model=customised, base_model=model)
    cond, uncond = golden_step(patched, positive, negative, golden["latents"], params["timestep"])
    near(cond, golden["eps_cond"])
    near(uncond, golden["eps_uncond"])
    # the customised model alone is another
    cond, _ = golden_step(customised, positive, negative, golden["latents"], params["timestep"])
    assert relative(cond, golden["eps_cond"]) > 0.1

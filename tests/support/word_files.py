"""Files of words in an embeddings folder of their own, the CLIP of the golden text cases, and single golden steps."""

import shutil
from contextlib import contextmanager

import folder_paths
import pytest
import torch
from comfy.clip_model import ACTIVATIONS
from support.clips import tiny_clip
from support.golden_data import GOLDEN, case
from support.models import recording, sample

CASES = GOLDEN / "text_concepts"


@contextmanager
def only_files_in(kind, path, monkeypatch):
    path.mkdir()
    endings = folder_paths.folder_names_and_paths[kind][1]
    monkeypatch.setattr(folder_paths, "models_dir", str(path.parent))
    monkeypatch.setitem(folder_paths.folder_names_and_paths, kind, ([str(path)], endings))
    folder_paths.filename_list_cache.pop(kind, None)
    yield path
    folder_paths.filename_list_cache.pop(kind, None)


@pytest.fixture
def embeddings(tmp_path, monkeypatch):
    """An empty embeddings folder, the only one."""
    with only_files_in("embeddings", tmp_path / "embeddings", monkeypatch) as path:
        yield path


def put(folder, name, group="text_concepts"):
    """A golden file in a folder; its name."""
    shutil.copy(GOLDEN / group / name, folder / name)
    return name


class Vocabulary:
    """An inner tokenizer of a small vocabulary; numbers stand for themselves."""

    def __init__(self, words, start, end):
        self.words, self.start, self.end = words, start, end

    def __call__(self, text, **kwargs):
        ids = [self.words[word] if word in self.words else int(word) for word in text.split()]
        return {"input_ids": [self.start, *ids, self.end]}


def concept_clip(vocabulary=None, kind="sd15"):
    """The CLIP of the golden text cases; prompts are numbers or words of a vocabulary, names stand apart."""
    weights, params = case("text_concepts/tiny_text_encoder")
    name = {"sd15": "l", "sd2": "h"}[kind]
    clip = tiny_clip(kind, widths={name: 32})
    encoder = getattr(clip.cond_stage_model, f"clip_{name}")
    for layer in encoder.transformer.text_model.encoder.layers:
        # of all kinds: SD2.x's own is another
        layer.mlp.activation = ACTIVATIONS["quick_gelu"]
    state = encoder.transformer.state_dict()
    for key, tensor in weights.items():
        # the host's table is as long as CLIP's vocabulary
        state[key][: len(tensor)] = tensor
    start, end = params["bos"], params["eos"]
    encoder.special_tokens = {"start": start, "end": end, "pad": end}
    tokenizer = getattr(clip.tokenizer, f"clip_{name}")
    tokenizer.tokenizer = Vocabulary(vocabulary or {}, start, end)
    tokenizer.start_token, tokenizer.end_token, tokenizer.pad_token = start, end, end
    return clip


def golden_step(model, positive, negative, latents, timestep):
    """(eps of the positive, eps of the negative) of one call of the UNet, for latents (variance preserving)."""
    sigma = float(model.get_model_object("model_sampling").sigma(torch.tensor(timestep)))
    model, recorder = recording(model)
    noise = latents * (1 + sigma**2) ** 0.5 / sigma
    sigmas = torch.tensor([sigma, 0.0])
    sample(model, positive, negative, latent=tuple(latents.shape), noise=noise, sigmas=sigmas)
    (call,) = recorder.calls
    return call.cond, call.uncond


def golden_trajectory(model, positive, negative, golden, params):
    """(the latents and eps of each step as they came, the last state): DDIM, which is Euler in the host."""
    sampling = model.get_model_object("model_sampling")
    sigmas = [float(sampling.sigma(torch.tensor(t))) for t in (*params["timesteps"], 0)]
    model, recorder = recording(model)
    latents = golden["latents"]
    noise = latents * (1 + sigmas[0] ** 2) ** 0.5 / sigmas[0]
    out = sample(
        model,
        positive,
        negative,
        latent=tuple(latents.shape),
        noise=noise,
        sigmas=torch.tensor(sigmas),
        cfg=params["guidance_scale"],
    )
    scale = model.model.latent_format.scale_factor
    return recorder.calls, out * scale / (1 + sigmas[-1] ** 2) ** 0.5

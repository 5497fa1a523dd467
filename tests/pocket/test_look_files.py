"""Teaching a look: the files of three techniques do in the host's full-width model what the narrow network did."""

import look_files
import pytest
import torch
from made_up import options, predicted
from samples import encode
from support.compare import differ
from support.models import execute
from support.word_files import only_files_in
from vocabulary import UNKNOWN, rows_of

from pack.nodes.pocket.pocket_model import load_pocket
from pack.nodes.text_contexts.varying_words_node import NeTILoader
from pack.nodes.weight_deltas.weight_deltas_node import CustomDiffusionLoader, KronALoader

# {kind: (folder of models, what loads it beside model and clip)}
LOADED = {
    "krona": ("loras", KronALoader, "krona_file", {"strength": 1.0}),
    "custom_diffusion": ("loras", CustomDiffusionLoader, "delta_file", {"strength": 1.0, "words": ""}),
    "neti": ("embeddings", NeTILoader, "mapper_file", {"truncation": 128, "word": ""}),
}


@pytest.fixture(scope="module", params=look_files.KINDS)
def taught(request, folder):
    """(kind, Taught, path of its file, names of what two steps moved); then made large enough to be seen."""
    kind = request.param
    with torch.inference_mode(False), torch.enable_grad():
        said = {"word": "rocket", "kind": kind, "hue": 120, "folder": folder, "out": folder / kind, "pictures": 6}
        training, path = look_files.train(options(folder, rate=0.05, **said))
        assert training.steps == 2 and path.is_file()
        network = training.network.requires_grad_(False)
        moved = [name for name, one in network.named_parameters() if one.any()]
        for name, one in network.named_parameters():
            if name.startswith(("ups.", "us.", "network.output_layer")):
                torch.nn.init.normal_(one, std=0.2)
        network.write(folder / kind)
    return kind, network, path, moved


@pytest.mark.slow
def test_all_of_it_learns_and_nothing_else(taught):
    _, network, _, moved = taught
    assert len(moved) > 0.9 * len(list(network.parameters()))
    assert not any(name.startswith("frozen") or "denoiser" in name for name in network.state_dict())


@pytest.mark.slow
def test_the_host_does_what_the_narrow_network_does(taught, folder, monkeypatch, tmp_path):
    kind, network, path, _ = taught
    models, node, name, settings = LOADED[kind]
    model, clip, _ = load_pocket(folder)
    text = f"a {network.named} on a blue background"
    with only_files_in(models, tmp_path / models, monkeypatch):
        (tmp_path / models / path.name).write_bytes(path.read_bytes())
        given = {"model": model, name: path.name, **settings}
        patched, *rest = execute(node, **given) if kind == "krona" else execute(node, clip=clip, **given)
        found = predicted(patched, encode(clip if kind == "krona" else rest[0], text))
    with torch.inference_mode(False), torch.no_grad():
        expected = network(found.x[:1].clone(), torch.tensor([999]), rows_of(text)[None])
    assert differ(found.cond, expected) < 2e-3
    assert differ(predicted(model, encode(clip, text)).cond, expected) > 0.01


def test_captions_name_it_as_prompts_will():
    for kind, strange in (("krona", 0), ("custom_diffusion", 1)):
        assert (rows_of(look_files.KINDS[kind].caption.format("rocket")) == UNKNOWN).sum() == strange

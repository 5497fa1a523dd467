"""The kernels of words' maps and of contexts on the host's networks, against values recorded from published code."""

import torch
from support.compare import relative
from support.models import tiny_model
from support.training_steps import clip_with, context_of, golden_case, predicted

from pack.kernels.training_losses import context_loss
from pack.kernels.word_maps import quarter_losses, word_map, word_places
from pack.nodes.host.attention import plain_attention
from pack.nodes.host.blocks import attention_blocks
from pack.nodes.host.calls import grid_of, heads_of, with_replacements
from pack.nodes.training.trained_texts import TrainedText
from pack.nodes.training.word_maps_kept import KeptMaps


def test_maps_of_a_scene():
    golden, params = golden_case("break_a_scene_words")
    chosen, prompt = params["subsets"][0], params["prompts"][0]
    clip = clip_with({name: golden[f"init/{name}"] for name in params["words"]})
    # behind the start token, in the order in which they stand in the prompt
    places = [(1 + i,) for i, token in enumerate(prompt.split()) if token in params["words"]]
    context = context_of(clip, prompt)
    maps, grids = [], set()

    def watch(q, k, v, options):
        maps.append(word_map(q, k, heads_of(options), word_places([places], context.shape[1])))
        grids.add(grid_of(options))
        return plain_attention(q, k, v, options)

    def watching(unet, options):
        blocks = [key for key, level in attention_blocks(unet).items() if level == 2 and key[0] != "middle"]
        return with_replacements(options, {("attn2", block): lambda standing: watch for block in blocks})

    predicted(tiny_model(), golden["latents"], golden["step0/noise"], golden["step0/timesteps"][1:], context, watching)
    (grid,) = grids
    assert grid == (params["map_grid"],) * 2
    mean = torch.stack(maps).mean(0)[0].mT.unflatten(-1, grid)
    assert relative(mean, golden["step0/map"]) < 1e-4
    masks = golden["masks"][chosen].float()[None] / golden["masks"].max()
    loss = params["attention_weight"] * quarter_losses(maps, masks, grid).sum()
    assert relative(loss, golden["step0/loss_attention"]) < 1e-5


def test_a_word_moves_the_rest_of_a_prompt():
    golden, params = golden_case("core")
    clip = clip_with({"<w>": golden["init/<w>"]})
    context, reference = (context_of(clip, params[f"{name}_prompt"])[0] for name in ("regularisation", "reference"))
    place = params["regularisation_prompt"].split().index("<w>") + 1
    assert relative(context_loss(context, reference, (place,)), golden["step0/loss_embedding"]) < 1e-5


def test_texts_of_unlike_lengths():
    """A shorter text is repeated as the host does, which changes no map."""
    q, k = (torch.randn(3, tokens, 8, generator=torch.Generator().manual_seed(tokens)) for tokens in (4, 6))
    own, short = k[:2], k[2:, :3]
    texts = [TrainedText(torch.zeros(1, length, 8), None, {"<a>": (1, 2)}) for length in (6, 3)]
    keys = torch.cat([own[:1], short.repeat(1, 2, 1), own[1:]]).repeat(1, 2, 1)
    kept = KeptMaps({}, "levels", texts, [("<a>",)] * 2)
    options = {"n_heads": 2, "activations_shape": (3, 4, 2, 2)}
    kept(q, keys, keys, options)
    ((found,),) = kept.close().values()
    for row, alone in enumerate((own[:1], short)):
        expected = word_map(q[row : row + 1], alone, 2, word_places([[(1, 2)]], alone.shape[1]))
        torch.testing.assert_close(found[row : row + 1], expected)

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

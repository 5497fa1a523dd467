"""SAM's mask decoder, guided as PerSAM guides it (arXiv 2305.03048, section 3.2).

The transformer is run here by hand: those of the package transformers take the same two inputs, but some versions leave
the target out of the last attention or add the map to scores instead of probabilities.
"""

import torch


def decoded(model, features, points, labels, box=None, logits=None, guide=None):
    """(masks (4, 256, 256) as logits, scores (4,)) of one picture: the first for one mask, the others for three.

    model: the SamModel; features (1, C, 64, 64); points (n, 2) and box (4,) in the pixels of the 1024 frame; labels
    (n,): 1 on the subject, 0 beside it; logits (1, 1, 256, 256) of an earlier mask; guide: (map (4096,), target (C,)).
    """
    sparse, dense = model.prompt_encoder(
        points[None, None], labels[None, None], None if box is None else box[None, None], logits
    )
    decoder = model.mask_decoder
    tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight, sparse[0, 0]])[None]
    image = (features + dense).flatten(2).transpose(1, 2)
    places = model.get_image_wide_positional_embeddings().flatten(2).transpose(1, 2)
    tokens, image = _transformed(decoder.transformer, tokens, image, places, guide)
    found = image.transpose(1, 2).reshape(features.shape)
    found = decoder.activation(decoder.upscale_layer_norm(decoder.upscale_conv1(found)))
    found = decoder.activation(decoder.upscale_conv2(found))[0]
    count = len(decoder.mask_tokens.weight)
    weights = torch.cat([mlp(tokens[:, 1 + i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)])
    masks = (weights @ found.flatten(1)).reshape(count, *found.shape[1:])
    return masks, decoder.iou_prediction_head(tokens[:, 0])[0]


def _transformed(transformer, tokens, image, places, guide):
    """Tokens (1, n, C) and image (1, 4096, C) after the two-way transformer; places: the image's position code."""
    similarity, target = (None, 0) if guide is None else guide
    # the tokens are their own position code, target included
    codes = queries = tokens + target
    for number, layer in enumerate(transformer.layers):
        if number == 0:
            queries = _attended(layer.self_attn, queries, queries, queries)
        else:
            queries = queries + target
            queries = queries + _attended(layer.self_attn, queries + codes, queries + codes, queries)
        queries = layer.layer_norm1(queries)
        read = _attended(layer.cross_attn_token_to_image, queries + codes, image + places, image, similarity)
        queries = layer.layer_norm2(queries + read)
        queries = layer.layer_norm3(queries + layer.mlp(queries))
        read = _attended(layer.cross_attn_image_to_token, image + places, queries + codes, queries)
        image = layer.layer_norm4(image + read)
    read = _attended(transformer.final_attn_token_to_image, queries + codes + target, image + places, image)
    return transformer.layer_norm_final_attn(queries + read), image


def _attended(attention, q, k, v, similarity=None):
    """softmax(q k^T / sqrt(d)) v of one attention's projections; with a map (m,): softmax(softmax(...) + map) v."""

    def split(x):
        return x.unflatten(-1, (attention.num_attention_heads, -1)).transpose(1, 2)

    q, k, v = split(attention.q_proj(q)), split(attention.k_proj(k)), split(attention.v_proj(v))
    shares = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
    if similarity is not None:
        shares = (shares + similarity).softmax(-1)
    return attention.out_proj((shares @ v).transpose(1, 2).flatten(2))

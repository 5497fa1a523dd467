"""Image prompts in the scene, and an expectation of them that shares no code with the pack."""

import math

import torch
from comfy.ldm.modules.attention import BasicTransformerBlock
from composition.scene import random
from support.golden_data import case
from support.image_prompts import GreyVision, WordCLIP, adapter_of, references_of
from support.models import conditioning, execute

from pack.nodes.image_prompts.mip_adapter_node import MIPAdapter

ADAPTERS = {"sd15": "weights_sd15_ip_adapter", "sdxl": "weights_sdxl_base"}
WORDS = {"cat": [11], "red hat": [12, 13]}
STRENGTHS = (1.0, 0.5)
SCALE = 0.75


class Pictures:
    """Two image prompts for a scene."""

    def __init__(self, scene):
        self.scene = scene
        self.width = {"sd15": 32, "sdxl": 48}[scene.kind]
        self.contexts = {word: random(1, 77, self.width, seed=60 + i) for i, word in enumerate(WORDS)}

    def ours(self, model=None, **inputs):
        """The MODEL through Add Reference and the MIP-Adapter node."""
        table = {w: (ids, self.contexts[w], {"pooled_output": torch.zeros(1, 40)}) for w, ids in WORDS.items()}
        given = {
            "adapter": adapter_of(ADAPTERS[self.scene.kind]),
            "clip": WordCLIP(table),
            "clip_vision": GreyVision(),
            "scale": SCALE,
            "references": references_of(WORDS, strengths=STRENGTHS),
        }
        return execute(MIPAdapter, model=self.scene.model if model is None else model, **given | inputs)[0]


class PicturesExpectation:
    """While it is open, every cross-attention gives what stands there plus the merged image part of MIP-Adapter.

    Torch hooks on the UNet's own modules see the projected q, k, v and what goes into the output projection. A rewrite
    of the specification, one head and one object at a time, in double: no code of the pack.
    """

    def __init__(self, pictures, beside=None):
        self.pictures, self.scene = pictures, pictures.scene
        # the expectation of MRSA, whose reference passes see no pictures
        self.beside = beside
        self.weights, _ = case(f"mip_adapter/{ADAPTERS[self.scene.kind]}")
        self.weights = {name: w.double() for name, w in self.weights.items()}
        vision = GreyVision()
        embeds = [vision.encode_image(r.image).image_embeds for r in references_of(WORDS)]
        self.tokens = [self._tokens(e.double()[0]) for e in embeds]
        self.empty = self._tokens(torch.zeros(24).double())

    def _tokens(self, embed):
        flat = embed @ self.weights["image_proj.proj.weight"].T + self.weights["image_proj.proj.bias"]
        rows = flat.view(4, -1)
        rows = (rows - rows.mean(1, keepdim=True)) / (rows.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        return rows * self.weights["image_proj.norm.weight"] + self.weights["image_proj.norm.bias"]

    def __enter__(self):
        unet = self.scene.model.model.diffusion_model
        parts = (unet.input_blocks, unet.output_blocks, unet.middle_block)
        layers = [m.attn2 for part in parts for m in part.modules() if isinstance(m, BasicTransformerBlock)]
        self.handles, self.seen = [], {}
        for number, layer in enumerate(layers):
            for name in ("to_q", "to_k", "to_v"):
                hook = lambda module, args, out, at=(number, name): self._note(at, args[0], out)  # noqa: E731
                self.handles.append(getattr(layer, name).register_forward_hook(hook))
            hook = lambda module, args, at=(number, layer): self._at_output(*at, args[0])  # noqa: E731
            self.handles.append(layer.to_out.register_forward_pre_hook(hook))

    def __exit__(self, *error):
        for handle in self.handles:
            handle.remove()

    def _note(self, at, context, out):
        self.seen[at] = context, out

    def _at_output(self, number, layer, standing):
        if self.beside is not None and self.beside.catching is not None:
            return None
        q, (context, k), v = self.seen[number, "to_q"][1], self.seen[number, "to_k"], self.seen[number, "to_v"][1]
        negative = self.scene.texts["negative"][0].to(context)
        out = standing.clone()
        for row in range(len(q)):
            heads = [t[row].double().unflatten(-1, (layer.heads, -1)).movedim(1, 0) for t in (q, k, v)]
            text = self._attend(*heads).movedim(0, 1).flatten(1)
            gate = self._gate(number, text)
            unconditional = torch.equal(context[row, : negative.shape[1]], negative[0])
            image = self._empty(number, heads[0]) if unconditional else self._merged(number, layer, heads[0])
            out[row] += (SCALE * gate[:, None] * image).to(out)
        return (out,)

    def _attend(self, q, k, v):
        return (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1) @ v

    def _gate(self, number, text):
        vector = self.weights.get(f"ip_adapter.{2 * number + 1}.text_to_weight.weight")
        if vector is None:
            return torch.ones(len(text)).double()
        gate = torch.sigmoid(text @ vector[0])
        return gate / gate.mean()

    def _image(self, number, q, tokens):
        k, v = (tokens @ self.weights[f"ip_adapter.{2 * number + 1}.to_{x}_ip.weight"].T for x in "kv")
        k, v = (t.unflatten(-1, (len(q), -1)).movedim(1, 0) for t in (k, v))
        return self._attend(q, k, v).movedim(0, 1).flatten(1)

    def _empty(self, number, q):
        return sum(STRENGTHS) / len(STRENGTHS) * self._image(number, q, self.empty)

    def _merged(self, number, layer, q):
        maps = []
        for word, ids in WORDS.items():
            rows = self.pictures.contexts[word][0, 1 : len(ids) + 1]
            keys = (rows @ layer.to_k.weight.T).double().unflatten(-1, (len(q), -1)).movedim(1, 0)
            at_positions = (keys @ q.mT / math.sqrt(q.shape[-1])).softmax(-1)
            maps.append(at_positions.mean((0, 1)))
        shares = torch.stack(maps) / sum(maps)
        images = [self._image(number, q, tokens) for tokens in self.tokens]
        return sum(s[:, None] * k * image for s, k, image in zip(shares, STRENGTHS, images, strict=True))


class PeerAdapter:
    """A plain IP-Adapter as the public pack puts it at a block: an object with `.add`, which the next node calls."""

    def __init__(self, tokens, number):
        self.parts = [(tokens, number)]

    def add(self, tokens, number):
        self.parts.append((tokens, number))

    def __call__(self, q, k, v, options):
        from comfy.ldm.modules.attention import optimized_attention

        heads = options["n_heads"]
        out = optimized_attention(q, k, v, heads)
        for tokens, (to_k, to_v) in self.parts:
            tokens = tokens.to(q).expand(q.shape[0], -1, -1)
            out = out + 0.5 * optimized_attention(q, tokens @ to_k.mT.to(q), tokens @ to_v.mT.to(q), heads)
        return out


def peer_adapter(scene, tokens=None):
    """attach(model): the public pack's way of patching, at every cross-attention of a scene's UNet."""
    weights, _ = case(f"mip_adapter/{ADAPTERS[scene.kind]}")
    width = {"sd15": 32, "sdxl": 48}[scene.kind]
    tokens = random(1, 8, width, seed=77) if tokens is None else tokens

    def attach(model):
        from pack.nodes.image_adapters.adapter_fit import cross_attentions

        patched = model.clone()
        standing = patched.model_options["transformer_options"].setdefault("patches_replace", {})
        at_attn2 = dict(standing.get("attn2", {}))
        for number, block in enumerate(cross_attentions(model.model.diffusion_model)):
            pair = tuple(weights[f"ip_adapter.{2 * number + 1}.to_{x}_ip.weight"].float() for x in "kv")
            if block in at_attn2:
                at_attn2[block].add(tokens, pair)
            else:
                at_attn2[block] = PeerAdapter(tokens, pair)
        patched.model_options["transformer_options"]["patches_replace"] = {**standing, "attn2": at_attn2}
        return patched

    return attach


def coupled_with_list(second):
    """Attention couple that says, in the block's options, whose the rows are that it puts in."""

    def enlarge(n, context, value, options):
        order, rows = options["cond_or_uncond"], n.shape[0] // len(options["cond_or_uncond"])
        parts, listed = [], []
        for i, index in enumerate(order):
            own = slice(i * rows, (i + 1) * rows)
            texts = [context[own]] if index else [context[own], second.expand_as(context[own])]
            parts += [(n[own], text) for text in texts]
            listed += [index] * len(texts)
        options["cond_or_uncond_couple"] = listed
        n, context = (torch.cat(some) for some in zip(*parts))
        return n, context, context

    def join(n, options):
        listed = options["cond_or_uncond_couple"]
        chunks, out = list(n.chunk(len(listed))), []
        for index in options["cond_or_uncond"]:
            if index:
                out.append(chunks.pop(0))
            else:
                even = torch.arange(n.shape[1])[:, None] % 2 == 0
                out.append(torch.where(even, chunks.pop(0), chunks.pop(0)))
        return torch.cat(out)

    def attach(model):
        patched = model.clone()
        patched.set_model_attn2_patch(enlarge)
        patched.set_model_attn2_output_patch(join)
        return patched

    return attach


def texts(scene, *names):
    """A positive of several texts."""
    return [entry for name in names for entry in conditioning(scene.texts[name][0])]

"""A scene to compose in: a tiny model with references, and an expectation that shares no code with the pack."""

import math
from contextlib import nullcontext
from types import SimpleNamespace

import torch
from comfy.ldm.modules.attention import BasicTransformerBlock
from comfy.patcher_extension import WrappersMP
from support.compare import relative
from support.models import StubCLIP, StubVAE, conditioning, execute, sample, tiny_adm, tiny_model

from pack.nodes.reference_attention import mrsa
from pack.nodes.reference_attention.mrsa_node import MultiReferenceSelfAttention
from pack.nodes.references.references_node import AddReference

# Two steps, the second from what the first made.
SIGMAS = (5.0, 1.0, 0.0)
ONE_STEP = (5.0, 0.0)
# Attentions of the output blocks 4-11 (SD1.5; the published ones and two more) and 1-5 (SDXL).
BLOCKS = {"sd15": range(8, 16), "sdxl": range(16, 28)}
# Sizes of the references' latents: unlike each other's, unlike the image's 8 x 12.
SIZES = ((8, 8), (6, 8))
STRENGTHS = (1.0, 2.0)
SEED = 7


def random(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def same(a, b):
    """Equal but for rounding, which the tiny UNets amplify to some 1e-6, and for a few draws of noise to 1e-4."""
    return a.shape == b.shape and (not a.numel() or relative(a, b) < 3e-4)


def unlike(a, b):
    """Far more than rounding: golden MRSA data put the least wrong implementation at 0.02."""
    return relative(a, b) > 1e-2


class Scene:
    """A MODEL, a positive and a negative text, two references: run it bare, patched, or with the expectation."""

    def __init__(self, kind="sd15", batch=1, size=(8, 12), sizes=SIZES, weights=None):
        self.kind, self.latent, self.sizes = kind, (batch, 4, *size), sizes
        self.model = tiny_model(kind)
        if weights:
            weights(self.model.model.diffusion_model)
        # each text: (context, pooled)
        self.texts = {
            name: (random(1, 7, {"sd15": 32, "sdxl": 48}[kind], seed=i), random(1, 40, seed=90 + i))
            for i, name in enumerate(("positive", "negative", "picture 0", "picture 1", "elsewhere"))
        }
        self.latents = [random(4, *size, seed=50 + i) for i, size in enumerate(sizes)]
        # of the first picture only the left half is kept
        self.masks = [torch.zeros(8 * sizes[0][0], 8 * sizes[0][1]), None]
        self.masks[0][:, : 4 * sizes[0][1]] = 1

    def text(self, name, **values):
        context, pooled = self.texts[name]
        return conditioning(context, **({"pooled_output": pooled} if self.kind == "sdxl" else {}), **values)

    def ours(
        self, model=None, pictures=(0, 1), regions=(None, None), blocks=None, weight=3.0, fidelity=1.0, cache_mb=0
    ):
        """The MODEL through Add Reference and the MRSA node."""
        references = ()
        for i in pictures:
            (references,) = execute(
                AddReference,
                image=torch.rand(1, 8 * self.sizes[i][0], 8 * self.sizes[i][1], 3),
                strength=STRENGTHS[i],
                prompt=f"picture {i}",
                mask=self.masks[i],
                region=regions[i],
                references=references,
            )
        model = self.model if model is None else model
        table = {name: (context, {"pooled_output": pooled}) for name, (context, pooled) in self.texts.items()}
        (patched,) = execute(
            MultiReferenceSelfAttention,
            model=model,
            clip=StubCLIP(table),
            vae=StubVAE(model, [self.latents[i] for i in pictures]),
            weight=weight,
            blocks="custom",
            custom_blocks=",".join(map(str, blocks or BLOCKS[self.kind])),
            style_fidelity=fidelity,
            reference_seed=SEED,
            cache_mb=cache_mb,
            references=references,
        )
        return patched

    def run(self, model=None, positive=None, negative=None, expect=None, sigmas=SIGMAS, **kwargs):
        """One sampling run: .latent, and .calls of the UNet, each with eps of its cond and uncond rows and its x."""
        calls = []

        def record(executor, x, t, context, *args, **more):
            eps = executor(x, t, context, *args, **more)
            negatives = self.uncond_rows(context)
            calls.append(SimpleNamespace(x=x, cond=eps[~negatives], uncond=eps[negatives]))
            return eps

        recorded = (self.model if model is None else model).clone()
        recorded.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "record", record)
        positive, negative = positive or self.text("positive"), negative or self.text("negative")
        with expect or nullcontext():
            latent = sample(recorded, positive, negative, latent=self.latent, sigmas=torch.tensor(sigmas), **kwargs)
        return SimpleNamespace(latent=latent, calls=calls)

    def attentions(self):
        """The UNet's self-attentions, in order of execution."""
        return [m.attn1 for m in self.model.model.diffusion_model.modules() if isinstance(m, BasicTransformerBlock)]

    def uncond_rows(self, context):
        """Which rows of a UNet call carry the negative text: told by the text itself, not by the host's labels."""
        negative = self.texts["negative"][0].to(context)
        return torch.tensor([bool(torch.equal(row, negative[0])) for row in context])


class Expectation:
    """While it is open, the UNet gives what MRSA must give: whatever stands at an attention, plus (MRSA - plain).

    Torch hooks on the UNet's own modules see the projected q, k, v and what goes into the output projection, whoever
    put it there; keys of the references come from a forward of their own with the weights of that moment. A rewrite of
    the specification, slow and in float32: no code of the pack but its noise.
    """

    def __init__(self, scene, blocks=None, weight=3.0, fidelity=1.0, pictures=(0, 1), gain=1.0, at_query=None):
        self.scene, self.weight, self.fidelity, self.pictures = scene, weight, fidelity, pictures
        self.blocks = blocks or BLOCKS[scene.kind]
        # gain: of an override that multiplies every attention
        # at_query(context of a row, picture, number of tokens): ln of the picture's region at each query
        self.gain, self.at_query = gain, at_query
        self.unet = scene.model.model.diffusion_model
        self.attentions = scene.attentions()
        self.projected, self.reference_keys, self.planned, self.handles = {}, {}, {}, []

    def __enter__(self):
        self.catching = None
        self.handles = [self.unet.register_forward_pre_hook(self._at_unet, with_kwargs=True)]
        for index in self.blocks:
            attention = self.attentions[index]
            for name in ("to_q", "to_k", "to_v"):
                hook = lambda module, args, out, at=(index, name): self.projected.__setitem__(at, out)  # noqa: E731
                self.handles.append(getattr(attention, name).register_forward_hook(hook))
            hook = lambda module, args, index=index: self._at_output(index, args[0])  # noqa: E731
            self.handles.append(attention.to_out.register_forward_pre_hook(hook))

    def __exit__(self, *error):
        for handle in self.handles:
            handle.remove()

    def _at_unet(self, module, args, kwargs):
        x, t, context, y = args[0], args[1], kwargs["context"], kwargs.get("y")
        options = kwargs["transformer_options"]
        sigma = float(options["sigmas"][0])
        step = int(self.scene.model.model.model_sampling.timestep(options["sigmas"][:1]))
        self.planned = {}
        for row, uncond in enumerate(self.scene.uncond_rows(context)):
            share = 1 - self.fidelity if uncond else 1.0
            if share:
                texts = (context[row : row + 1], y[row : row + 1] if y is not None else None) if uncond else None
                self.planned[row] = (
                    share,
                    [self._catch(i, n, sigma, step, t, texts) for n, i in enumerate(self.pictures)],
                )
        self.rows, self.context = x.shape[0], context

    def _catch(self, picture, number, sigma, step, t, texts):
        z = self.scene.latents[picture][None]
        x = (z + sigma * mrsa.reference_noise(SEED, number, step, z)) / math.sqrt(sigma**2 + 1)
        if texts is None:
            context, pooled = self.scene.texts[f"picture {picture}"]
            height, width = (8 * side for side in self.scene.sizes[picture])
            sdxl = self.scene.kind == "sdxl"
            texts = context, tiny_adm(pooled_output=pooled, height=height, width=width) if sdxl else None
        self.catching = {}
        self.unet._forward(x, t[:1], texts[0], texts[1], None, {})
        caught, self.catching = self.catching, None
        return picture, caught

    def _at_output(self, index, standing):
        q, k, v = (self.projected[index, name] for name in ("to_q", "to_k", "to_v"))
        if self.catching is not None:
            self.catching[index] = k[0], v[0]
            return None
        tiles = q.shape[0] // self.rows
        k, v = (t.reshape(q.shape[0], -1, t.shape[-1]) for t in (k, v))
        out = standing.clone()
        for row, (share, pictures) in self.planned.items():
            for one in range(row * tiles, (row + 1) * tiles):
                both = self._with_references(index, row, q[one], k[one], v[one], pictures)
                plain = self._attend(index, q[one], k[one], v[one], torch.zeros(1))
                out[one] += self.gain * share * (both - plain)
        return (out,)

    def _with_references(self, index, row, q, k, v, pictures):
        keys, values, bias = [k], [v], [torch.zeros(len(q), len(k))]
        for picture, caught in pictures:
            ref_k, ref_v = caught[index]
            kept = self._kept(picture, len(ref_k))
            keys.append(ref_k[kept])
            values.append(ref_v[kept])
            added = torch.full((len(q), len(keys[-1])), self.weight + math.log(STRENGTHS[picture]))
            if self.at_query:
                added = added + self.at_query(self.context[row], picture, len(q))[:, None]
            bias.append(added)
        return self._attend(index, q, torch.cat(keys), torch.cat(values), torch.cat(bias, 1))

    def _kept(self, picture, tokens):
        mask = self.scene.masks[picture]
        if mask is None:
            return torch.ones(tokens, dtype=torch.bool)
        # this picture is square
        side = math.isqrt(tokens)
        at = torch.arange(side) * mask.shape[0] // side
        return mask[at][:, at].flatten() > 0

    def _attend(self, index, q, k, v, bias):
        heads = self.attentions[index].heads
        q, k, v = (t.unflatten(-1, (heads, -1)).movedim(1, 0) for t in (q, k, v))
        return ((q @ k.mT / math.sqrt(q.shape[-1]) + bias).softmax(-1) @ v).movedim(0, 1).flatten(1)

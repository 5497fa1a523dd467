"""What learns a look as the files of KronA, Custom Diffusion and NeTI hold it, beside the frozen pocket model."""

import math

import torch
import torch.nn.functional as F
from concept import BLOCKS, PROJECTIONS, WIDTH
from parts import CONTEXT
from safetensors.torch import save_file
from samples import pack
from torch import nn
from vocabulary import UNKNOWN

TIMES = WIDTH // CONTEXT
# of KronA's factors: the down's are (inputs / SECOND, FIRST); rank of Custom Diffusion's changes
FIRST, SECOND, RANK = 8, 8, 2
# units of NeTI's hidden layers
HIDDEN = 64


class Taught(nn.Module):
    """What learns stands in a subclass; the frozen networks stand aside.

    caption: what a thing's word becomes; file: where its file lies in a folder of models.
    """

    caption = "{}"
    file = ""

    def __init__(self, denoiser, row, word):
        super().__init__()
        pack()
        # in a tuple, or the frozen networks would count as what learns
        self.frozen, self.word = (denoiser,), word
        self.register_buffer("row", row.clone())

    @property
    def named(self):
        """What prompts call it."""
        return self.caption.format(self.word)

    def write(self, folder):
        """Writes its file, for prompts of SD1.5's width; returns the path."""
        path = folder / self.file.format(self.word)
        path.parent.mkdir(parents=True, exist_ok=True)
        (save_file if path.suffix == ".safetensors" else torch.save)(self.contents(), path)
        return path

    def embedded(self, rows, own):
        """(b, 77, CONTEXT): what the text encoder reads of captions' rows, `own` for the word."""
        table = self.frozen[0].text_encoder.get_input_embeddings().weight
        return torch.where((rows == UNKNOWN)[..., None], own, table[rows])

    def encoded(self, embedded):
        """(contexts, the states that the last norm makes them of)"""
        text = self.frozen[0].text_encoder.text_model
        last = len(text.encoder.layers) - 1
        said = {"num_tokens": [1] * len(embedded), "dtype": embedded.dtype}
        made, states, _ = text(embeds=embedded, intermediate_output=last, final_layer_norm_intermediate=False, **said)
        return made, states

    def forward(self, noisy, timesteps, rows):
        context, _ = self.encoded(self.embedded(rows, self.row))
        return self.frozen[0].unet(noisy, timesteps, context)

    def layers(self, attentions=("attn1", "attn2"), projections=PROJECTIONS):
        """{diffusers' name: the layer} of the UNet's attentions."""
        unet = self.frozen[0].unet
        inner = [f"transformer_blocks.0.{attention}" for attention in attentions]
        return {
            f"{name}.{one}.{projection}": unet.get_submodule(f"{host}.{one}.{projection}")
            for name, host in BLOCKS.items()
            for one in inner
            for projection in projections
        }


class KronA(Taught):
    """A Kronecker product of two small factors for each attention projection (arXiv 2402.17412)."""

    file = "loras/{}_krona.safetensors"

    def __init__(self, denoiser, row, word):
        super().__init__(denoiser, row, word)
        self.downs, self.ups = nn.ParameterDict(), nn.ParameterDict()
        for name, layer in self.layers().items():
            key = name.replace(".", "/")
            # (inputs' first side, outputs' second) and (outputs' first side, inputs' second)
            down = torch.randn(layer.in_features // SECOND, FIRST) / math.sqrt(layer.in_features)
            self.downs[key] = nn.Parameter(down)
            self.ups[key] = nn.Parameter(torch.zeros(layer.out_features // FIRST, SECOND))
            layer.register_forward_hook(self._adapter(key))

    def _adapter(self, key):
        from pack.kernels.row_adapters import crossed_linear

        def add(layer, inputs, output):
            return output + crossed_linear(inputs[0], self.downs[key], self.ups[key])

        return add

    def contents(self):
        """{name: tensor} as DiffuseKronA saves them."""
        tensors = {}
        for key, down in self.downs.items():
            name = key.replace("/", ".")
            if name.endswith(("attn2.to_k", "attn2.to_v")):
                down = down.repeat(TIMES, 1) / TIMES
            attention, _, projection = name.removesuffix(".0").rpartition(".")
            start = f"unet.{attention}.processor.{projection}_lora"
            tensors[f"{start}.down.weight"], tensors[f"{start}.up.weight"] = down, self.ups[key]
        return {name: t.detach().half().cpu().contiguous() for name, t in tensors.items()}


class CustomDiffusion(Taught):
    """Low-rank changes of each cross-attention's keys and values, and a word before the thing's own (2212.04488)."""

    caption = "<new1> {}"
    file = "loras/{}_custom_diffusion.bin"

    def __init__(self, denoiser, row, word):
        super().__init__(denoiser, row, word)
        # it learns, in the place of the buffer
        self.row = nn.Parameter(row.clone())
        self.us, self.vs = nn.ParameterDict(), nn.ParameterDict()
        for name, layer in self.layers(("attn2",), ("to_k", "to_v")).items():
            key = name.replace(".", "/")
            self.us[key] = nn.Parameter(torch.zeros(layer.out_features, RANK))
            self.vs[key] = nn.Parameter(torch.randn(RANK, CONTEXT) / math.sqrt(CONTEXT))
            layer.register_forward_hook(self._adapter(key))

    def _adapter(self, key):
        def add(layer, inputs, output):
            return output + F.linear(F.linear(inputs[0], self.vs[key]), self.us[key])

        return add

    def contents(self):
        """The research code's compressed layout."""
        wide = [self.vs[key].repeat(1, TIMES) / TIMES for key in self.us]
        *pairs, word = in_one_piece([*self.us.values(), *wide, self.row.repeat(TIMES)])
        names = [f"{key.replace('/', '.')}.weight" for key in self.us]
        both = zip(names, pairs[: len(names)], pairs[len(names) :], strict=True)
        return {"unet": {name: {"u": u, "v": v} for name, u, v in both}, "modifier_token": {"<new1>": word}}


def in_one_piece(tensors):
    """These tensors in half precision as views of one: a file has an entry for each piece of memory."""
    whole = torch.cat([one.detach().half().cpu().flatten() for one in tensors])
    parts = whole.split([one.numel() for one in tensors])
    return [part.view(one.shape) for part, one in zip(parts, tensors, strict=True)]


class NeTI(Taught):
    """A network that makes a word's vector, and what is added to the states of values, anew by timestep and layer.

    arXiv 2305.15391.
    """

    caption = "<{}>"
    file = "embeddings/{}_neti.pt"

    def __init__(self, denoiser, row, word):
        super().__init__(denoiser, row, word)
        self.network = nn.ParameterDict()
        shapes = {"net/1": (HIDDEN, 2), "net/4": (HIDDEN, HIDDEN), "output_layer/0": (2 * CONTEXT, HIDDEN)}
        for name, (made, reads) in shapes.items():
            self.network[f"{name}/weight"] = nn.Parameter(torch.randn(made, reads) / math.sqrt(reads))
            self.network[f"{name}/bias"] = nn.Parameter(torch.zeros(made))
        for name in ("net/2", "net/5"):
            self.network[f"{name}/weight"] = nn.Parameter(torch.ones(HIDDEN))
            self.network[f"{name}/bias"] = nn.Parameter(torch.zeros(HIDDEN))
        # begins as the plain word at every timestep and layer, with any direction for values
        with torch.no_grad():
            self.network["output_layer/0/weight"].mul_(0.1)
            self.network["output_layer/0/bias"].copy_(torch.cat([row, row[torch.randperm(CONTEXT)]]))
        for i, host in enumerate(BLOCKS.values()):
            attention = denoiser.unet.get_submodule(f"{host}.transformer_blocks.0.attn2")
            attention.register_forward_pre_hook(self._own_context(i), with_kwargs=True)

    def _own_context(self, i):
        def choose(attention, inputs, named):
            keys, values = named["context"]
            return inputs, named | {"context": keys[:, i], "value": values[:, i]}

        return choose

    @property
    def norm(self):
        """The length of what the network makes: that of the plain word's vector, twice."""
        return self.row.norm().item() * math.sqrt(2)

    def made(self, timesteps):
        """(vectors (b, layers, CONTEXT), what is added (b, layers, CONTEXT)) at these timesteps."""
        from pack.kernels.word_mapper import mapped_word

        weights = {name.replace("/", "."): one.cpu() for name, one in self.network.items()}
        made = [mapped_word(weights, t, len(BLOCKS), norm=self.norm) for t in timesteps.tolist()]
        return torch.stack(made).to(timesteps.device).chunk(2, dim=-1)

    def forward(self, noisy, timesteps, rows):
        from pack.nodes.text_contexts.made_contexts import BYPASS

        with torch.autocast(noisy.device.type, enabled=False):
            vectors, added = self.made(timesteps)
        layers = len(BLOCKS)
        embedded = self.embedded(rows[:, None].expand(-1, layers, -1), vectors[:, :, None])
        keys, states = (one.unflatten(0, (-1, layers)) for one in self.encoded(embedded.flatten(0, 1)))
        size = BYPASS * states.norm(dim=-1, keepdim=True)
        pulled = states + size * F.normalize(added, dim=-1)[:, :, None] * (rows == UNKNOWN)[:, None, :, None]
        values = self.frozen[0].text_encoder.text_model.final_layer_norm(pulled)
        return self.frozen[0].unet(noisy, timesteps, (keys, values))

    def contents(self):
        """The network and its settings, as NeTI saves them."""
        state = {name.replace("/", "."): one.detach() for name, one in self.network.items()}
        for part in ("weight", "bias"):
            name = f"output_layer.0.{part}"
            state[name] = torch.cat([half.repeat(TIMES, *[1] * (half.ndim - 1)) for half in state[name].chunk(2)])
        # all vectors repeat, and so are as much longer
        settings = {"target_norm": self.norm * math.sqrt(TIMES), "use_positional_encoding": False}
        settings |= {"use_nested_dropout": False, "word_embedding_dim": WIDTH}
        cfg = {"model": settings, "data": {"placeholder_token": self.named}}
        return {"state_dict": dict(zip(state, in_one_piece(list(state.values())), strict=True)), "cfg": cfg}

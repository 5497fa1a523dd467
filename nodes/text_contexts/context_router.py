"""Contexts while sampling: whatever conditioning carries them reads its own at each layer and timestep."""

from ..host.blocks import attention_blocks
from ..host.calls import live_unet
from ..host.layered_prompts import TAUGHT, ContextPatch, contexts_of, models_of, rows_of_first_text
from ..host.rows import entry_of, prompts_of
from ..host.technique import Technique
from .made_contexts import differently_patched


class ContextRouter(Technique):
    """Brings the Contexts of whatever conditioning is sampled to the layers of the UNet."""

    name = "context_router"
    order = 20
    reads_contexts = True

    def __init__(self, labels):
        """labels: what messages call the files whose words need it; () for prompts that may have Contexts or not."""
        self.labels = labels

    @property
    def loaders(self):
        """The nodes that loaded these files, in a sentence."""
        return " and ".join(f"Load {label}" for label in self.labels)

    def joined_by(self, later):
        return ContextRouter(tuple(dict.fromkeys((*self.labels, *later.labels))))

    def begin(self, run):
        """Raises ValueError for prompts that want different weights of one text encoder."""
        texts = [(entry.get("cross_attn"), entry) for several in run.conds().values() for entry in several]
        taught = any(TAUGHT in entry for entry in prompts_of(run.conds()))
        if self.labels and not taught and all(contexts_of(*text) is None for text in texts):
            run.tell(
                f"{', '.join(self.labels)}: no prompt of this run has the words by layer or step, so the likeness is "
                "weaker; write the words into the prompt, and encode it by CLIP Text Encode with the CLIP from "
                f"{self.loaders}"
            )
        patches = {}
        for patcher in models_of(*texts):
            if patches.setdefault(patcher.model, patcher.patches_uuid) != patcher.patches_uuid:
                raise differently_patched()

    def patches(self, call):
        held = call.run.state(self.name, dict, call.base)
        rows = []
        for chunk in call.chunks:
            key = chunk.uuid, chunk.role
            if key not in held:
                entry = entry_of(chunk, call.run.conds()) or {}
                contexts = contexts_of(entry.get("cross_attn"), entry)
                held[key] = entry.get("cross_attn"), None if contexts is None else contexts.to(call.context)
            tensor, contexts = held[key]
            if contexts is not None:
                mine = rows_of_first_text(tensor, call.context[chunk.rows])
                every = len(mine) == chunk.stop - chunk.start
                rows.append((chunk.rows if every else [chunk.start + row for row in mine], contexts))
        if not rows:
            return {}
        blocks, timestep = attention_blocks(live_unet(call.base)), call.whole_timestep
        return {"attn2_patch": ContextPatch(rows, blocks, call.x.shape[0], timestep, call.run.tell)}

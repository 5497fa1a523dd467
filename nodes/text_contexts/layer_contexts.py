"""Layer-wise prompts while sampling: whatever conditioning carries them reads its own context at each layer."""

from ..host.blocks import attention_blocks
from ..host.layered_prompts import LayeredContexts, contexts_of
from ..host.rows import entry_of
from ..host.technique import Technique


class LayerContexts(Technique):
    """Brings layer-wise prompts of whatever conditioning is sampled to the layers of the UNet."""

    name = "layer_contexts"
    order = 20

    def joined_by(self, later):
        return self

    def patches(self, call):
        held = call.run.state(self.name, dict)
        rows = []
        for chunk in call.chunks:
            key = chunk.uuid, chunk.role
            if key not in held:
                entry = entry_of(chunk, call.run.conds()) or {}
                contexts = contexts_of(entry.get("cross_attn"), entry)
                held[key] = None if contexts is None else contexts.to(call.context)
            if held[key] is not None:
                rows.append((chunk.rows, held[key]))
        if not rows:
            return {}
        return {"attn2_patch": LayeredContexts(rows, attention_blocks(call.base.diffusion_model), call.x.shape[0])}

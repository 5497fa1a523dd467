"""Which Contexts the image's own rows read, where a technique on the MODEL brings them to the layers."""

from .attach import techniques_of
from .layered_prompts import contexts_of, rows_of_first_text
from .rows import entry_of


def contexts_read(call, chunk, context):
    """The Contexts that all rows of a chunk read, as the whole context (b, T, D) of a call has them; None where they
    read one text at all layers, or several.
    """
    if not any(technique.reads_contexts for technique in techniques_of(call.base.current_patcher)):
        return None
    entry = entry_of(chunk, call.run.conds()) or {}
    tensor, own = entry.get("cross_attn"), context[chunk.rows]
    contexts = contexts_of(tensor, entry)
    if contexts is None or len(rows_of_first_text(tensor, own)) < len(own):
        return None
    return contexts.to(context)

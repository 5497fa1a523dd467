"""Perfusion while sampling: prompts lose what they have of the concepts' inputs, projections get their outputs."""

from dataclasses import dataclass

import torch

from ...kernels.gated_edit import concept_outputs, dual_inputs, gates_of, projector, without_concepts
from ..host.attention import plain_attention
from ..host.blocks import attention_blocks
from ..host.calls import block_of, live_unet
from ..host.messages import input_error
from ..host.technique import Branch, Technique
from .perfusion_file import SIDES

# How much the metrics of two files may differ.
SAME_METRIC = 1e-4


@dataclass(frozen=True, eq=False)
class GatedConcept:
    """One concept of a MODEL."""

    edits: dict  # {(block, side): perfusion_file.Edit}
    metric: torch.Tensor
    strength: float
    beta: float
    tau: float


class Perfusion(Technique):
    """All Perfusion concepts of one MODEL: each row is freed of all of them at once."""

    name = "perfusion"
    # behind the router, whose keys and values it reads
    order = 25

    def __init__(self, concepts):
        self.concepts = concepts
        # {(block, side): SideEdit}
        self.sides = {place: SideEdit(concepts, place) for place in concepts[0].edits}

    def joined_by(self, later):
        """Raises ValueError for concepts of another text encoder."""
        mine, other = self.concepts[0].metric, later.concepts[0].metric
        if mine.shape != other.shape or (mine - other).norm() > SAME_METRIC * mine.norm():
            raise input_error(
                "two Perfusion files of this model have different C_inv, so they are for different text encoders "
                "and cannot act together; load files of one trainer, or one alone"
            )
        return Perfusion(self.concepts + later.concepts)

    def patches(self, call):
        return {"attn2_patch": self._edit(call)}

    def plan(self, call):
        edit = self._edit(call)
        return {("attn2", block): ConceptOutputs(edit, block) for block in attention_blocks(live_unet(call.base))}

    def _edit(self, call):
        """What is noted in one call, between a block's patch and its attention."""
        held = call.run.state(self.name, dict, call.base)
        if "sides" not in held:
            held["sides"] = {place: side.to(call.context) for place, side in self.sides.items()}
        if held.get("call") is not call:
            held.update(call=call, edit=ContextEdit(held["sides"], call))
        return held["edit"]


class SideEdit:
    """The concepts' part in the keys or the values of one block, prepared for rows of prompts."""

    def __init__(self, concepts, place):
        edits = [concept.edits[place] for concept in concepts]
        inputs = torch.stack([edit.inputs for edit in edits])
        duals, energies = dual_inputs(inputs, concepts[0].metric)
        self.duals, self.energies = duals.float(), energies.float()
        self.projecting = projector(inputs, duals).float()
        positions = max(len(edit.outputs) for edit in edits)
        self.outputs = torch.stack([edit.outputs.float().expand(positions, -1) for edit in edits])
        self.strength, self.beta, self.tau = (
            torch.tensor([getattr(concept, name) for concept in concepts]) for name in ("strength", "beta", "tau")
        )

    def to(self, like):
        """The same on a tensor's device; all of it is computed in float32."""
        placed = object.__new__(SideEdit)
        vars(placed).update({name: tensor.to(like.device) for name, tensor in vars(self).items()})
        return placed

    def freed(self, rows):
        """(rows (b, T, D) without what they have of the concepts, the gates (b, T, c))."""
        similarities = rows.float() @ self.duals.T
        gates = gates_of(similarities, self.energies, self.beta, self.tau)
        return without_concepts(rows.float(), similarities, self.projecting, self.strength).to(rows), gates

    def added(self, gates):
        """(b, T, d): what the concepts add to the projected rows."""
        return concept_outputs(gates, self.outputs, self.strength)


class ContextEdit:
    """An attn2_patch for one call: frees the picture's rows of the concepts' inputs, and notes their gates."""

    def __init__(self, sides, call):
        self.sides, self.tell = sides, call.run.tell
        self.rows = call.x.shape[0]
        # {block: (gates of keys, gates of values)}
        self.gates = {}

    def __call__(self, n, context, value, options):
        block = block_of(options)
        if context.shape[0] < self.rows:
            self.tell(
                "Perfusion: another node removed rows at some layers, so the concepts are left out there; bypass it"
            )
            self.gates.pop(block, None)
            return n, context, value
        freed = []
        for side, rows in zip(SIDES, (context, value), strict=True):
            # rows that another technique has put behind the batch are not the picture's
            mine, gates = self.sides[block, side].freed(rows[: self.rows])
            freed.append((torch.cat([mine, rows[self.rows :]]), gates))
        self.gates[block] = freed[0][1], freed[1][1]
        return n, freed[0][0], freed[1][0]


class ConceptOutputs(Branch):
    """A branch: attention with what the concepts add to keys and values."""

    label = "Perfusion"

    def __init__(self, edit, block):
        self.edit, self.block = edit, block

    def __call__(self, q, k, v, options, chunk, plain):
        noted = self.edit.gates.get(self.block)
        if noted is None or k.shape[1] != noted[0].shape[1] or chunk.stop > len(noted[0]) or len(k) != len(q):
            return None
        added = [
            self.edit.sides[self.block, side].added(gates[chunk.rows]).to(k)
            for side, gates in zip(SIDES, noted, strict=True)
        ]
        return plain_attention(q, k + added[0], v + added[1], options)

"""IdentityNet (InstantID, arXiv 2401.07519): a ControlNet that reads people's faces instead of the prompt.

It runs at each call of the UNet, on the UNet's own inputs, and adds its residuals to those of the ControlNets that
stand there: these see their own prompt, and the CONDITIONING needs no wires.
"""

from dataclasses import dataclass, replace

import torch

from ..host.devices import own_of
from ..host.frames import STRETCHED
from ..host.latents import pixels_of
from ..host.technique import Technique, joined_members
from ..host.when import Window
from .identity_passes import IdentityPasses, with_residuals


@dataclass(frozen=True, eq=False)
class IdentityMember:
    """What one node adds to a MODEL's IdentityNets; several of equal settings become one."""

    label: str
    net: object  # the ModelPatcher of the host's ControlNet
    dtype: torch.dtype  # in which it computes
    strength: float
    together: bool  # all people in one pass, or each in its own
    window: Window
    tokens: tuple  # (16, D) of each person, what the net reads as its prompt
    empty: tuple  # the same of nobody, for unconditional rows
    faces: tuple  # of PlacedFace
    strengths: tuple
    regions: tuple  # (H, W) in 0..1 over the result, or None, per person

    @property
    def settings(self):
        return self.label, id(self.net.model), self.dtype, self.strength, self.together, self.window

    @property
    def passes(self):
        """How often the net sees each row of the batch."""
        return 1 if self.together else len(self.shown(self.tokens))

    def shown(self, several):
        """Of one thing per person those of the people whom the net sees: not of strength 0, where each has a pass."""
        return [one for one, strength in zip(several, self.strengths, strict=True) if self.together or strength]

    def joined_by(self, later):
        people = ("tokens", "empty", "faces", "strengths", "regions")
        return replace(self, **{name: getattr(self, name) + getattr(later, name) for name in people})


class IdentityNets(Technique):
    """All IdentityNets of one MODEL. Around everything else, so that extra rows of others never reach them."""

    name = "identity_net"
    order = 90

    def __init__(self, members):
        self.members = members

    def joined_by(self, later):
        return IdentityNets(joined_members(self.members, later.members))

    def models(self):
        return [member.net for member in self.members]

    def extra_rows(self, noise_shape):
        return max(member.passes for member in self.members) * noise_shape[0]

    def begin(self, run):
        height, width = pixels_of(run.latent_size)
        for member in self.members:
            for face in member.faces:
                ratio = face.size[0] * width / (face.size[1] * height)
                if max(ratio, 1 / ratio) > STRETCHED:
                    run.tell(
                        f"{member.label}: the faces are placed by a picture of {face.size[1]}x{face.size[0]}, which is "
                        f"stretched over this one of {width}x{height}; give pose_image the aspect of the result"
                    )

    def around(self, call, forward):
        active = [m for m in self.members if m.window.holds(call.moment, call.base.model_sampling)]
        if not active:
            return forward
        state = call.run.state(self.name, dict, call.base)
        running = call.base.current_patcher

        def controlled(x, timesteps, context, y, control, options):
            for member in active:
                net = own_of(running, member.net)
                passes = IdentityPasses(member, net, call, options, state)
                control = with_residuals(control, passes.residuals(x, timesteps, y))
            return forward(x, timesteps, context, y, control, options)

        return controlled

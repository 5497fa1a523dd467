"""The passes of an IdentityNet for one call of the UNet: its pictures, its prompts, its residuals in their places."""

import torch

from ...kernels.keypoint_picture import keypoint_picture
from ...kernels.masks import WHOLE, regions_at
from ...kernels.picture_parts import part_in_frame
from ..host.frames import frame_shown
from ..host.latents import pixels_of
from ..host.rows import COND


class IdentityPasses:
    """One member's net for one call; what lasts for a run is kept in `state`, a dict."""

    def __init__(self, member, net, call, options, state):
        self.member = member
        self.net = net
        self.call = call
        self.state = state
        shown = tuple(call.x.shape[-2:])
        self.whole = call.run.latent_size or shown
        self.rows = [chunk.stop - chunk.start for chunk in call.chunks]
        # the part of the result that each chunk shows
        self.frames = [frame_shown(shown, options, chunk, call.run) for chunk in call.chunks]

    def residuals(self, x, timesteps, y):
        """{"output": [...], "middle": [...]} to be added to the UNet's, {} where nobody knows what the rows show."""
        if None in self.frames:
            self.call.run.tell(
                f"{self.member.label}: IdentityNet is left out where another node samples an unknown part of the "
                "picture, since a whole face would be squeezed into it; connect the MODEL from before this node there"
            )
            return {}
        device, dtype, passes = self.net.load_device, self.member.dtype, self.member.passes
        read = self._kept(self._context, device, dtype, tuple(chunk.role for chunk in self.call.chunks))
        hint = self._kept(self._hint, device, dtype, tuple(self.frames))
        latent = x[:, : self.net.model.in_channels].to(device, dtype)
        given = {"timesteps": timesteps, "y": y}
        given = {name: None if t is None else _repeated(t.to(device, dtype), passes) for name, t in given.items()}
        found = self.net.model(x=_repeated(latent, passes), hint=hint, context=read, **given)
        return {name: [self._placed(residual).to(x) for residual in values] for name, values in found.items()}

    def _kept(self, make, device, dtype, *of):
        """What make() gives for such rows, on a device and in a dtype: once a run."""
        key = make.__name__, self.member, tuple(self.rows), device, dtype, *of
        if key not in self.state:
            self.state[key] = make().to(device, dtype)
        return self.state[key]

    def _context(self):
        """The people's tokens as prompts: (rows, 16, D) for each pass, or of all people in one row behind another."""
        sides = []
        for chunk, rows in zip(self.call.chunks, self.rows, strict=True):
            tokens = self.member.shown(self.member.tokens if chunk.role == COND else self.member.empty)
            each = torch.cat(tokens)[None] if self.member.together else torch.stack(tokens)
            sides.append(each[:, None].expand(-1, rows, -1, -1))
        return torch.cat(sides, 1).flatten(0, 1)

    def _hint(self):
        """The keypoint pictures (rows, 3, H, W) for each pass; one row where all are equal."""
        size = pixels_of(self.whole)
        faces = [face.at(size) for face in self.member.shown(self.member.faces)]
        sheets = [keypoint_picture(each, size) for each in ([faces] if self.member.together else [[f] for f in faces])]
        found = []
        for sheet in sheets:
            shown = {frame: _cut(sheet, frame) for frame in dict.fromkeys(self.frames)}
            if len(sheets) == 1 and len(shown) == 1:
                return next(iter(shown.values()))[None].float() / 255
            for rows, frame in zip(self.rows, self.frames, strict=True):
                found += [shown[frame]] * rows
        return torch.stack(found).float() / 255

    def _placed(self, residual):
        """The residuals (passes rows, c, h, w) of all people as one (rows, c, h, w), each in its region."""
        each = residual.unflatten(0, (self.member.passes, -1))
        grid = tuple(residual.shape[-2:])
        factors = [self._factors(frame, grid, each) for frame in self.frames]
        parts = each.split(self.rows, 1)
        return torch.cat([(part * factor[:, None, None]).sum(0) for part, factor in zip(parts, factors, strict=True)])

    def _factors(self, frame, grid, like):
        """s k_i R_i / max(1, sum of R) at a grid, (passes, h, w) or (passes, 1, 1); of one pass for all s k max R."""
        key = "factors", self.member, frame, grid, like.device, like.dtype
        if key not in self.state:
            strengths = torch.tensor(self.member.strengths)[:, None, None]
            regions = torch.ones(len(strengths), 1, 1)
            if any(region is not None for region in self.member.regions):
                regions = regions_at(self.member.regions, grid, frame)
            if self.member.together:
                found = strengths.mean(0, keepdim=True) * regions.amax(0, keepdim=True)
            else:
                found = torch.stack(self.member.shown(strengths * regions / regions.sum(0).clamp(min=1)))
            self.state[key] = (self.member.strength * found).to(like)
        return self.state[key]


def with_residuals(control, residuals):
    """The UNet's dictionary of residuals with others added, in lists of its own: the UNet takes them from the ends."""
    found = {name: list(values) for name, values in (control or {}).items()}
    for name, values in residuals.items():
        standing = found.get(name, [])
        length = max(len(standing), len(values))
        both = zip(_filled(standing, length), _filled(values, length), strict=True)
        found[name] = [one if two is None else two if one is None else one + two.to(one) for one, two in both]
    return found or control


def _filled(values, length):
    return [None] * (length - len(values)) + list(values)


def _repeated(rows, times):
    return rows if times == 1 else rows.repeat(times, *[1] * (rows.ndim - 1))


def _cut(sheet, frame):
    """The part (3, h, w) of a picture (H, W, 3)."""
    if frame == WHOLE:
        return sheet.movedim(-1, 0)
    return sheet[part_in_frame(frame, sheet.shape[:2])].movedim(-1, 0)

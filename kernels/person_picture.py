"""A person on white, as StoryMaker's vision encoder was shown one (arXiv 2409.12576, `crop` of its published code)."""

import torch
import torch.nn.functional as F

from .picture_parts import bounds_of

# Of the mask's blur, in both directions.
BLUR = (1, 4, 6, 4, 1)


def on_white(picture, mask):
    """uint8 (h, w, 3): a picture (H, W, 3) of whole numbers, cut to the box of its mask (H, W) above 0, white outside.

    The cut mask, 0..255, is blurred by BLUR / 16 with mirrored edges and rounded; colours are cut to whole numbers.
    """
    rows, columns = bounds_of(mask > 0)
    mask, picture = mask[rows, columns].float(), picture[rows, columns].float()
    share = (_blurred(mask) / 255)[..., None]
    return (picture * share + 255 * (1 - share)).byte()


def squashed(picture, side):
    """uint8 (side, side, 3): bicubic with antialiasing, whatever the aspect."""
    channels_first = picture.float().movedim(-1, 0)[None]
    small = F.interpolate(channels_first, size=(side, side), mode="bicubic", antialias=True)
    return small[0].movedim(0, -1).round().clamp(0, 255).byte()


def _blurred(mask):
    """The mask (h, w) blurred and rounded; its edges are mirrored at the outermost pixels, which are not repeated."""
    line = torch.tensor(BLUR).float() / sum(BLUR)
    reach = len(BLUR) // 2
    if min(mask.shape) <= reach:
        # nothing of so thin a mask would be left
        return mask
    padded = F.pad(mask[None, None], [reach] * 4, mode="reflect")
    return F.conv2d(padded, (line[:, None] * line)[None, None])[0, 0].round()

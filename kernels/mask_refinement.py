"""Masks that follow the shapes which an attention map shows (Concept Conductor, arXiv 2408.03632)."""

import torch

from .mask_pyramid import coverage, grid_mask, without_seams


def best_match(labels, old, threshold):
    """The cluster that overlaps a mask most: (h, w) bool, or None if its IoU is below the threshold.

    labels: several clusterings, each (h, w) of integers; old (h, w) bool. IoU = |A and B| / |A or B|; of equally good
    clusters the first one of the first clustering.
    """
    best, best_iou = None, -1.0
    for labelling in labels:
        for label in labelling.unique():
            cluster = labelling == label
            iou = ((cluster & old).sum() / (cluster | old).sum()).item()
            if iou > best_iou:
                best, best_iou = cluster, iou
    return best if best is not None and best_iou >= threshold else None


def bounding_rectangle(mask):
    """The smallest rectangle (h, w) bool around the cells of a mask."""
    box = torch.zeros_like(mask)
    rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
    if len(rows):
        box[rows[0, 0] : rows[-1, 0] + 1, columns[0, 0] : columns[-1, 0] + 1] = True
    return box


def followed(labels, old, threshold, rectangle=False, keep=False):
    """The mask after one look at the clusters of an attention map: (h, w) bool.

    The best matching cluster of `labels` (several clusterings (h, w)); where none reaches the threshold, the bounding
    rectangle of the old mask, or with keep=True the old mask itself. rectangle=True: always the rectangle. An empty
    mask stays empty: no cluster is nearer to it than another.
    """
    if not old.any():
        return old
    if rectangle:
        return bounding_rectangle(old)
    match = best_match(labels, old, threshold)
    if match is not None:
        return match
    return old if keep else bounding_rectangle(old)


def merged(custom, base, old, size, close_seams=False):
    """The masks of all concepts at one layer after a refinement: (N, b, h, w) bool.

    U_i = custom_i or base_i at the grid `size` of that layer; m_i <- old_i in cells that several U_i cover, U_i
    elsewhere. custom, base (N, b, h', w') bool at the map's grid; old (N, b, h, w) bool.
    """
    union = grid_mask(custom, size) | grid_mask(base, size)
    new = torch.where(union.sum(0) > 1, old, union)
    if close_seams:
        new = without_seams(torch.maximum(coverage(custom, size), coverage(base, size)), new)
    return new

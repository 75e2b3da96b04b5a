"""Low-rank page summaries: mean key plus the two directions in which a page's keys spread most.

They reconstruct every logit of a page well enough that the page's mass is a log-sum-exp over its tokens instead of a
single number, at an eighth of the bytes of the keys they stand for: int8 mean, int4 directions, int4 coefficients.
Each tile also holds the mean value of its block, so that what is not read is estimated instead of ignored.
"""

from __future__ import annotations

import torch

from sparse_backend.config import BLOCK
from sparse_backend.selection.base import Selector, as_bytes, deinterleave, interleave, pages_of_block

RANK = 2
POWER_ITERATIONS = 12
TINY = 1e-20  # keeps scales of constant pages finite


class LowRank(Selector):
    name = "low_rank"
    code = 3
    # Chosen with benchmarks/selection_quality.py: with summaries, an eighth of the context reads 16 % of its bytes.
    key_share = 1.4
    value_share = 0.45
    first_layer_share = 3.0
    residual = True

    def tile_bytes(self, head_size: int, page_size: int) -> int:
        pages = pages_of_block(page_size)
        codes = head_size * pages + RANK * (head_size * pages + BLOCK) // 2
        return codes + 4 * (1 + RANK) * pages + 2 * head_size

    def summarise(self, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        mean, mean_scale = quantise(keys.mean(-2), 127)
        rest = keys - (mean * mean_scale)[..., None, :]
        directions, coefficients, scales = [], [], []
        for _ in range(RANK):
            direction, _ = quantise(largest_spread(rest), 7)
            # Coefficients by least squares on the direction as stored.
            exact = (rest @ direction[..., None]).squeeze(-1) / (direction.square().sum(-1, keepdim=True) + TINY)
            coefficient, scale = quantise(exact, 7)
            rest = rest - (coefficient * scale)[..., None] * direction[..., None, :]
            directions.append(interleave(direction))
            coefficients.append(interleave(coefficient))
            scales.append(scale.squeeze(-1))
        parts = [as_bytes(interleave(mean).to(torch.int8))]
        parts += [pack_int4(x) for x in (*directions, *coefficients)]
        parts += [as_bytes(x.float()) for x in (mean_scale.squeeze(-1), *scales)]
        parts.append(as_bytes(values.flatten(-3, -2).mean(-2).bfloat16()))
        return torch.cat(parts, -1)

    def log_mass(self, tiles: torch.Tensor, query: torch.Tensor, page_size: int) -> torch.Tensor:
        mean, directions, coefficients = unpack(tiles, query.shape[-1], page_size)
        slopes = torch.einsum("gd,bpkd->gbpk", query, directions)
        logits = (query @ mean.flatten(0, 1).T)[..., None] + torch.einsum(
            "gbpk,bpkt->gbpt", slopes, coefficients
        ).flatten(1, 2)
        return logits.logsumexp(-1)

    def mean_values(self, tiles: torch.Tensor, head_size: int, page_size: int) -> torch.Tensor:
        end = self.tile_bytes(head_size, page_size)
        return tiles[:, end - 2 * head_size : end].contiguous().view(torch.bfloat16).float()


def quantise(x: torch.Tensor, limit: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Symmetric codes in [-limit, limit] over the last dimension, as floats, and the scale that restores x."""
    top = x.abs().amax(-1, keepdim=True).clamp(min=TINY)
    return (x * (limit / top)).round().clamp(-limit, limit), top / limit


def largest_spread(rest: torch.Tensor) -> torch.Tensor:
    """[..., tokens, head_size] -> [..., head_size]: the leading direction, by power iteration on the Gram matrix."""
    gram = rest @ rest.mT
    start = gram.diagonal(dim1=-2, dim2=-1).argmax(-1)
    u = gram.gather(-1, start[..., None, None].expand(*gram.shape[:-1], 1))
    for _ in range(POWER_ITERATIONS):
        u = gram @ u
        u = u / u.norm(dim=-2, keepdim=True).clamp(min=1e-15)
    return (rest.mT @ u).squeeze(-1)


def pack_int4(codes: torch.Tensor) -> torch.Tensor:
    """Codes in [-7, 7] -> bytes; of every 32, the first 16 take the low nibbles and the others the high ones."""
    pairs = (codes + 8).to(torch.uint8).reshape(*codes.shape[:-1], -1, 2, 16)
    return (pairs[..., 0, :] | (pairs[..., 1, :] << 4)).flatten(-2)


def unpack_int4(packed: torch.Tensor) -> torch.Tensor:
    chunks = packed.reshape(*packed.shape[:-1], -1, 16)
    return torch.stack([chunks & 15, chunks >> 4], -2).flatten(-3).float() - 8


def unpack(tiles: torch.Tensor, head_size: int, page_size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """uint8 [blocks, tile_bytes] -> mean [blocks, pages, head_size], directions [blocks, pages, RANK, head_size] and
    coefficients [blocks, pages, RANK, page_size], float32, scales applied."""
    pages = pages_of_block(page_size)
    n = head_size * pages
    sizes = [n] + [n // 2] * RANK + [BLOCK // 2] * RANK + [4 * pages] * (1 + RANK)
    parts = torch.split(tiles[:, : sum(sizes)], sizes, -1)
    scales = [x.contiguous().view(torch.float32) for x in parts[1 + 2 * RANK :]]
    mean = deinterleave(parts[0].contiguous().view(torch.int8).float(), pages) * scales[0][..., None]
    directions = [deinterleave(unpack_int4(x), pages) for x in parts[1 : 1 + RANK]]
    coefficients = [
        deinterleave(unpack_int4(x), pages) * scale[..., None]
        for x, scale in zip(parts[1 + RANK : 1 + 2 * RANK], scales[1:], strict=True)
    ]
    return mean, torch.stack(directions, 2), torch.stack(coefficients, 2)

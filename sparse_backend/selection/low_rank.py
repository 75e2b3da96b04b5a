"""Low-rank page summaries: mean key plus the three directions in which a page's keys spread most.

They reconstruct every logit of a page well enough that the page's mass is a log-sum-exp over its tokens instead of a
single number, at about a tenth of the bytes of the keys they stand for: int8 mean, int4 directions, int4 coefficients.
Each tile also holds mean values, one for every 32 tokens in int4, so that what is not read is estimated instead of
ignored.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from sparse_backend.constants import BLOCK, FINE, MEAN_TOKENS, POWER_ITERATIONS, RANK, VECTOR
from sparse_backend.selection.base import Selector, as_bytes, deinterleave, interleave, pages_of_tile

TINY = 1e-20  # keeps scales of constant pages finite


class LowRank(Selector):
    name = "low_rank"
    # Chosen with benchmarks/selection_quality.py: with summaries, an eighth of the context reads 16 % of its bytes.
    key_share = 1.3
    value_share = 0.36
    first_layer_share = 2.5
    residual = True

    def tile_bytes(self, head_size: int, page_size: int) -> int:
        pages, means = pages_of_tile(page_size), means_of_block(page_size)
        keys = 5 * code_bytes(head_size, pages) // 2 + 3 * BLOCK // 2 + 4 * (1 + RANK) * pages
        return keys + means * head_size // 2 + 4 * means

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
            directions.append(direction)
            coefficients.append(coefficient)
            scales.append(scale.squeeze(-1))
        padding = code_bytes(keys.shape[-1], keys.shape[-3]) - keys.shape[-1] * keys.shape[-3]
        first, second, third = (F.pad(interleave_fours(x), (0, padding), value=-8) for x in directions)
        parts = [
            F.pad(interleave_fours(mean + 128), (0, padding)),
            nibbles(first, second),
            nibbles(*third.chunk(2, -1)),
        ]
        first, second, third = (interleave(x) for x in coefficients)
        parts += [nibbles(first, second), nibbles(*third.chunk(2, -1))]
        parts = [x.to(torch.uint8) for x in parts]
        parts += [as_bytes(x.float()) for x in (mean_scale.squeeze(-1), *scales)]
        mean_value, value_scale = quantise(self.page_means(values, keys.shape[-3]), 7)
        parts.append(nibbles(mean_value[..., ::2, :], mean_value[..., 1::2, :]).flatten(-2).to(torch.uint8))
        parts.append(as_bytes(value_scale.squeeze(-1)))
        return torch.cat(parts, -1)

    def page_means(self, values: torch.Tensor, pages: int) -> torch.Tensor:
        """Mean values of a block of `pages` pages, of which `values` has the complete ones.

        values: [..., complete pages, page_size, head_size].
        Returns [..., means, head_size], 0 where no page is complete.
        """
        together = pages // means_of_block(values.shape[-2])
        parts = [values[..., first : first + together, :, :] for first in range(0, pages, together)]
        means = [p.flatten(-3, -2).sum(-2) / max(1, p.shape[-3] * p.shape[-2]) for p in parts]
        return torch.stack(means, -2)

    def log_mass(self, tiles: torch.Tensor, query: torch.Tensor, page_size: int) -> torch.Tensor:
        mean, directions, coefficients = unpack(tiles, query.shape[-1], page_size)
        # Integer dot products are several times faster. The directions are so coarse that eight bits of the query will
        # do; with the mean, which decides between pages, it gets two times eight.
        codes, scale = quantise(query, 127 * FINE)
        slopes = torch.einsum("gd,bpkd->gbpk", (codes / FINE).round(), directions) * (FINE * scale[..., None, None])
        logits = (codes @ mean.flatten(0, 1).T * scale)[..., None] + torch.einsum(
            "gbpk,bpkt->gbpt", slopes, coefficients
        ).flatten(1, 2)
        return logits.logsumexp(-1)

    def mean_values(self, tiles: torch.Tensor, head_size: int, page_size: int) -> torch.Tensor:
        means, end = means_of_block(page_size), self.tile_bytes(head_size, page_size)
        sizes = [means * head_size // 2, 4 * means]
        codes, scale = torch.split(tiles[:, end - sum(sizes) : end], sizes, -1)
        low, high = both_nibbles(codes.reshape(-1, means // 2, head_size))
        values = torch.stack([low, high], 2).flatten(1, 2)
        return (values * scale.contiguous().view(torch.float32)[..., None]).flatten(0, 1)


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


def code_bytes(head_size: int, pages: int) -> int:
    """Bytes of one code for each dimension and page: whole vectors, also of two codes a byte."""
    return -(-head_size * pages // (2 * VECTOR)) * 2 * VECTOR


def means_of_block(page_size: int) -> int:
    """Mean values in a tile: an even number."""
    return BLOCK // max(MEAN_TOKENS, page_size)


def interleave_fours(x: torch.Tensor) -> torch.Tensor:
    """[..., pages, head_size] -> [..., head_size / 4 × pages × 4]: four dimensions of a page, then of the next one.

    Integer dot products of CPUs (VNNI) sum four neighbouring bytes.
    """
    return x.reshape(*x.shape[:-1], -1, 4).transpose(-3, -2).flatten(-3)


def deinterleave_fours(x: torch.Tensor, pages: int) -> torch.Tensor:
    return x.reshape(*x.shape[:-1], -1, pages, 4).transpose(-3, -2).flatten(-2)


def nibbles(low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """Two codes in [-7, 7] -> one in [17, 255]."""
    return (low + 8) + 16 * (high + 8)


def both_nibbles(packed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return (packed & 15).float() - 8, (packed >> 4).float() - 8


def unpack(tiles: torch.Tensor, head_size: int, page_size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """uint8 [blocks, tile_bytes] -> mean [blocks, pages, head_size], directions [blocks, pages, RANK, head_size] and
    coefficients [blocks, pages, RANK, page_size], float32, scales applied."""
    pages = pages_of_tile(page_size)
    n, codes = head_size * pages, code_bytes(head_size, pages)
    sizes = [codes, codes, codes // 2, BLOCK, BLOCK // 2] + [4 * pages] * (1 + RANK)
    mean, direction_pairs, third_direction, coefficient_pairs, third_coefficient, *scales = torch.split(
        tiles[:, : sum(sizes)], sizes, -1
    )
    mean_scale, *product_scales = (x.contiguous().view(torch.float32)[..., None] for x in scales)
    directions = (*both_nibbles(direction_pairs), torch.cat(both_nibbles(third_direction), -1))
    coefficients = (*both_nibbles(coefficient_pairs), torch.cat(both_nibbles(third_coefficient), -1))
    return (
        deinterleave_fours(mean[:, :n].float() - 128, pages) * mean_scale,
        torch.stack([deinterleave_fours(x[:, :n], pages) for x in directions], 2),
        torch.stack([deinterleave(x, pages) * s for x, s in zip(coefficients, product_scales, strict=True)], 2),
    )

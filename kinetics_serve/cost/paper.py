"""The Kinetics paper's published cost formulas, kept to compare with.

They are those of the code published with arXiv 2506.05333 (``cost_model/utils.py``), whose quirks they keep:

* contexts grow as a continuous integral, g²/2, and there is no prefill;
* dense samples of one prompt share its reads, sparse ones do not;
* with a budget B above the prompt p, ``top_k`` *adds* (B − p)²/2 to the tokens attended where
  ``block_top_k`` subtracts it; subtracting is right once the generation has passed the budget;
* the search of ``block_top_k`` counts floor((2·p + g) / page) · g, so it steps with the page, and it is
  charged for contexts within the budget too;
* its search memory multiplies g by the trials inside that sum, and the prompt's part not at all, as if the
  samples shared the prompt's summaries.

All return FLOPs and bytes of a 2-byte KV cache; the paper's eFLOPs are ``cost.eflops(INTENSITY)``. Every
attention layer is taken as full, other kinds raise ValueError, and every parameter, a looked-up embedding too, is taken
as active. ``Price`` is what we charge.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from kinetics_serve.cost.architecture import Architecture
from kinetics_serve.cost.cost import Cost
from kinetics_serve.cost.layers import AttentionLayers

INTENSITY = 562.5  # FLOPs per byte of the paper's B200


def dense(architecture: Architecture, prompt_tokens: int, generated_tokens: int, trials: int = 1) -> Cost:
    """``trials`` samples of ``generated_tokens`` each over one prompt, with dense attention."""
    query, kv = _widths(architecture)
    return Cost(
        _parameter_flops(architecture, generated_tokens, trials)
        + 2 * (2 * prompt_tokens + generated_tokens) * generated_tokens * query * trials,
        2 * (2 * prompt_tokens + generated_tokens * trials) * generated_tokens * kv,
    )


def top_k(architecture: Architecture, prompt_tokens: int, generated_tokens: int, budget: int, trials: int = 1) -> Cost:
    """The same with the top ``budget`` tokens attended, found at no cost."""
    query, kv = _widths(architecture)
    attended = budget * generated_tokens + 0.5 * max(0, budget - prompt_tokens) ** 2  # the sign is the paper's
    return Cost(
        _parameter_flops(architecture, generated_tokens, trials) + 4 * attended * query * trials,
        4 * attended * kv * trials,
    )


def block_top_k(
    architecture: Architecture,
    prompt_tokens: int,
    generated_tokens: int,
    local_tokens: int,
    page_size: int,
    pages: int,
    trials: int = 1,
) -> Cost:
    """The same with ``local_tokens`` and the top ``pages`` pages attended, found by one mean key a page."""
    query, kv = _widths(architecture)
    budget = local_tokens + page_size * pages
    attended = budget * generated_tokens - 0.5 * max(0, budget - prompt_tokens) ** 2
    search = (2 * prompt_tokens + generated_tokens) // page_size * generated_tokens
    search_memory = (2 * prompt_tokens + generated_tokens * trials) // page_size * generated_tokens
    return Cost(
        _parameter_flops(architecture, generated_tokens, trials) + (4 * attended + search) * query * trials,
        4 * attended * kv * trials + search_memory * kv,
    )


def coverage(scores: Sequence[float], k: int) -> float:
    """pass@k: the chance that k of the samples, drawn without replacement, hold a correct one.

    ``scores`` has a 1 for every correct sample and a 0 for every other. The unbiased estimator
    1 − C(n − c, k) / C(n, k) of n samples, c correct. Raises ValueError unless 1 <= k <= n.
    """
    samples, correct = len(scores), int(sum(scores))
    if not 1 <= k <= samples:
        raise ValueError(f"pass@k of {samples} samples needs 1 <= k <= {samples}, got {k}")
    return 1 - math.comb(samples - correct, k) / math.comb(samples, k)


def _parameter_flops(architecture: Architecture, generated_tokens: int, trials: int) -> int:
    return 2 * architecture.parameters * generated_tokens * trials


def _widths(architecture: Architecture) -> tuple[int, int]:
    """Query and KV elements of a token, over all layers."""
    groups = [group for group in architecture.layers if isinstance(group, AttentionLayers)]
    if len(groups) < len(architecture.layers):
        raise ValueError(f"the paper prices attention layers only, and {architecture.name} has others")
    query = sum(group.count * group.query_heads * group.head_size for group in groups)
    kv = sum(group.count * group.kv_heads * group.head_size for group in groups)
    return query, kv

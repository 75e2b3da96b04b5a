"""Which requests of a step decode sparsely: one small kernel, so that a CUDA graph's next replay can have others."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from sparse_backend.kernels.triton.dependent_launch import await_kernel_before, dependent_launch

REQUESTS = 128  # of one program


def plan_step(
    query_start: torch.Tensor,
    seq_lens: torch.Tensor,
    budgets: torch.Tensor,
    page_budgets: torch.Tensor,
    dense_lens: torch.Tensor,
    shared_pages: torch.Tensor,
    min_context: int,
) -> None:
    """Requests that bring one token, and whose context exceeds their budget and `min_context`, are sparse.

    query_start: [batch + 1]; seq_lens: [batch]; budgets: [1 + n, at least batch] in tokens, and in pages for layers of
    n kinds. Written: page_budgets [n, at least batch], 0 where a request is dense; dense_lens [at least batch], the
    context that the dense kernel sees, 1 where a request is sparse; shared_pages [at least batch], 0 until
    `bundle_requests` finds some. All int32, rows contiguous.
    """
    batch, kinds = len(seq_lens), len(page_budgets)
    _plan[(triton.cdiv(batch, REQUESTS),)](
        query_start,
        seq_lens,
        budgets,
        page_budgets,
        dense_lens,
        shared_pages,
        batch,
        min_context,
        budgets.stride(0),
        page_budgets.stride(0),
        KINDS=kinds,
        REQUESTS=REQUESTS,
        num_warps=4,
        **dependent_launch(seq_lens.device),
    )


@triton.jit(
    do_not_specialize=["batch", "min_context", "budgets_row", "pages_row"],
    do_not_specialize_on_alignment=["query_start", "seq_lens"],
)
def _plan(
    query_start,
    seq_lens,
    budgets,
    page_budgets,
    dense_lens,
    shared_pages,
    batch,
    min_context,
    budgets_row,
    pages_row,
    KINDS: tl.constexpr,
    REQUESTS: tl.constexpr,
    PDL: tl.constexpr,
):
    await_kernel_before(PDL)
    request = tl.program_id(0) * REQUESTS + tl.arange(0, REQUESTS)
    real = request < batch
    tokens = tl.load(seq_lens + request, real, 0)
    new = tl.load(query_start + request + 1, real, 0) - tl.load(query_start + request, real, 0)
    budget = tl.load(budgets + request, real, 0)
    sparse = (new == 1) & (budget > 0) & (tokens > tl.maximum(budget, min_context))
    tl.store(dense_lens + request, tl.where(sparse, 1, tokens), real)
    tl.store(shared_pages + request, tl.zeros([REQUESTS], tl.int32), real)
    for kind in tl.static_range(KINDS):
        read = tl.load(budgets + (1 + kind) * budgets_row + request, real, 0)
        tl.store(page_budgets + kind * pages_row + request, tl.where(sparse, read, 0), real)

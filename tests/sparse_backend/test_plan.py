"""Which requests of a step are sparse, as the GPU decides it."""

import pytest
import torch

pytest.importorskip("triton")

from sparse_backend.kernels.triton import plan_step
from tests.sparse_backend.gpu_caches import DEVICE


@pytest.mark.parametrize("batch", [1, 5, 300])
@pytest.mark.parametrize("min_context", [0, 150])
def test_long_requests_that_bring_one_token_are_sparse(batch: int, min_context: int) -> None:
    torch.manual_seed(0)
    new = torch.randint(0, 3, (batch,))
    start = torch.cat([torch.zeros(1), new.cumsum(0)]).int()
    lens, budgets = torch.randint(1, 300, (batch,)).int(), torch.zeros(3, 320).int()
    budgets[0, :batch] = torch.randint(0, 2, (batch,)) * 100
    budgets[1, :batch], budgets[2, :batch] = 6, 12
    expected = (new == 1) & (budgets[0, :batch] > 0) & (lens > budgets[0, :batch].clamp(min=min_context))
    pages, dense = torch.full((2, 320), -1).int(), torch.full((320,), -1).int()
    start, on_device, budgets_there = start.to(DEVICE), lens.to(DEVICE), budgets.to(DEVICE)
    pages, dense, shared = pages.to(DEVICE), dense.to(DEVICE), torch.full((320,), 5).int().to(DEVICE)
    plan_step(start, on_device, budgets_there, pages, dense, shared, min_context)
    pages, dense, shared = pages.cpu(), dense.cpu(), shared.cpu()
    assert torch.equal(dense[:batch], torch.where(expected, 1, lens))
    assert torch.equal(pages[:, :batch], torch.where(expected, budgets[1:, :batch], 0))
    assert not shared[:batch].any()  # whatever a step before left there
    assert (shared[batch:] == 5).all()
    assert (pages[:, batch:] == -1).all()  # nothing is written beyond the batch
    assert (dense[batch:] == -1).all()

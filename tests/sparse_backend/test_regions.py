"""What a layer keeps of its KV cache must not keep the cache."""

from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef

pytest.importorskip("vllm")

from vllm.v1.worker.utils import clear_layer_kv_caches

from sparse_backend.backends.regions import Regions, Views


def halves(kv_cache: torch.Tensor) -> Views:
    return kv_cache[:2], kv_cache[2:]


def layer(regions: Regions, kv_cache: torch.Tensor) -> SimpleNamespace:
    """What vLLM's attention layers are to `clear_layer_kv_caches`."""
    return SimpleNamespace(kv_cache=kv_cache, impl=SimpleNamespace(regions=regions))


def test_vllm_frees_a_cache_by_clearing_its_layers() -> None:
    regions = Regions(halves)
    profiled = layer(regions, torch.zeros(4, 8))
    regions(profiled.kv_cache)[0].fill_(1)
    assert profiled.kv_cache.sum() == 16
    memory = StorageWeakRef(profiled.kv_cache.untyped_storage())
    assert not memory.expired()
    clear_layer_kv_caches([profiled])
    assert memory.expired()


def test_one_cache_is_split_once_and_another_anew() -> None:
    split = Mock(side_effect=halves)
    regions = Regions(split)
    with torch.inference_mode():
        first, second = torch.zeros(4, 8), torch.ones(4, 8)
        assert regions(first)[0] is regions(first)[0]
        assert regions(second)[1].sum() == 16
        assert split.call_count == 2
        del first
        assert regions(second)[1].sum() == 16
        assert split.call_count == 2

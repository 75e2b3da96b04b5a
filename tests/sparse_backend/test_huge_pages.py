import mmap
import re
from pathlib import Path

import pytest
import torch

from sparse_backend.kernels.huge_pages import use_huge_pages


@pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="only Linux has this advice")
@pytest.mark.skipif(not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="a kernel without huge pages")
def test_the_kernel_is_told_of_the_whole_tensor() -> None:
    memory = torch.zeros(32 * 2**20, dtype=torch.uint8)
    use_huge_pages(memory)
    middle = memory.data_ptr() + len(memory) // 2
    for area in re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text()):
        first, last = (int(address, 16) for address in area.split(" ", 1)[0].split("-"))
        if first <= middle < last:
            assert re.search(r"^VmFlags:.* hg( |$)", area, re.M)
            assert last - first > 0.99 * len(memory)
            return
    raise AssertionError("the tensor is in no area of memory")


def test_a_tensor_smaller_than_a_page_is_left_alone() -> None:
    use_huge_pages(torch.zeros(8))

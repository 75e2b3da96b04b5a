"""Triton's kernels run in its interpreter here, on CPU tensors. Whether they do is settled when they are imported."""

from importlib.util import find_spec

import pytest

if find_spec("triton"):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        import triton.experimental.gluon  # noqa: F401  the interpreter imports it later otherwise, and it asks too

        import sparse_backend.kernels.triton  # noqa: F401

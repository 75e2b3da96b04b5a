"""Matrix products that give the same on a GPU and in Triton's interpreter, and a bound on what they give."""

import triton
import triton.language as tl
from triton import knobs

INTERPRETED = tl.constexpr(knobs.runtime.interpret)


@triton.jit
def dot(a, b):
    """a @ b in float32; 16-bit operands go through tensor cores, float32 ones are not rounded to TF32."""
    if INTERPRETED:  # Triton 3.9's interpreter multiplies the bits of bfloat16 numbers as if they were integers
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, input_precision="ieee")


@triton.jit
def capped(logits, SOFT_CAP: tl.constexpr):
    """Logits bounded smoothly: cap × tanh(logit / cap); a cap of 0 is none."""
    if SOFT_CAP > 0:
        logits = SOFT_CAP * (2 * tl.sigmoid(2 * logits / SOFT_CAP) - 1)
    return logits

"""4-bit codes, stored plus 8, two a byte."""

import triton
import triton.language as tl


@triton.jit
def low_half(pair):
    """The code in the low half of a byte, float32."""
    return ((pair & 15) - 8).to(tl.float32)


@triton.jit
def high_half(pair):
    return (((pair >> 4) & 15) - 8).to(tl.float32)


@triton.jit
def neighbours(pair):
    """[.., n] -> [.., 2 × n]: both codes of a byte, next to each other."""
    return tl.interleave(low_half(pair), high_half(pair))


@triton.jit
def pack(low, high):
    """Two codes in [-7, 7] in one byte."""
    return ((low + 8).to(tl.int32) | ((high + 8).to(tl.int32) << 4)).to(tl.int8)


@triton.jit
def pack_neighbours(codes):
    """[n] -> [n / 2]: codes 2i and 2i + 1 in one byte."""
    low, high = tl.split(tl.reshape(codes, [codes.shape[0] // 2, 2]))
    return pack(low, high)

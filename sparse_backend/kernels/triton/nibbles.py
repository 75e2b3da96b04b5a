"""4-bit codes, stored plus 8, two a byte."""

import triton
import triton.language as tl


@triton.constexpr_function
def BIAS(dtype):
    """What `codes_for_dot` adds to every code, the 8 of storage included."""
    return {"bf16": 136.0, "fp16": 1032.0}.get(dtype.name, 8.0)


@triton.jit
def codes_for_dot(packed, SHIFT: tl.constexpr, dtype: tl.constexpr):
    """The codes at bit SHIFT of bytes, plus `BIAS`, as numbers of a 16-bit type by setting bits alone: a float of this
    exponent counts in ones in its last bits."""
    code = (packed >> SHIFT) & 15
    if dtype == tl.bfloat16:
        return (code.to(tl.int16) | 0x4300).to(tl.bfloat16, bitcast=True)
    elif dtype == tl.float16:
        return (code.to(tl.int16) | 0x6400).to(tl.float16, bitcast=True)
    else:
        return code.to(dtype)


@triton.jit
def nibble(word, SHIFT: tl.constexpr):
    """The code at bit SHIFT of 32-bit words plus 16, stored 8 included: 24 more than it means, as float32."""
    bits = word >> (SHIFT - 19) if SHIFT > 19 else word << (19 - SHIFT)
    return ((bits & 0x780000) | 0x41800000).to(tl.float32, bitcast=True)


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

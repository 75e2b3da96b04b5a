"""4-bit codes, stored plus 8, two a byte."""

import triton
import triton.language as tl

from sparse_backend.kernels.triton.dot import INTERPRETED

CODE_BIAS = tl.constexpr(136.0)


@triton.constexpr_function
def BIAS(dtype):
    """What `codes_for_dot` adds to every code, the 8 of storage included."""
    return {"bf16": 136.0, "fp16": 1032.0}.get(dtype.name, 8.0)


@triton.constexpr_function
def SPREAD(dtype, shift):
    """PTX: four bytes' codes at bit `shift` into four 16-bit floats. Compiled, the same in Triton takes three times as
    many instructions."""
    exponent = {"bf16": "0x43434343", "fp16": "0x64646464"}[dtype.name]
    return f"""{{ .reg .b32 codes;
    shr.b32 codes, $2, {shift};
    and.b32 codes, codes, 0x0F0F0F0F;
    prmt.b32 $0, codes, {exponent}, 0x4140;
    prmt.b32 $1, codes, {exponent}, 0x4342; }}"""


@triton.jit
def codes_for_dot(packed, SHIFT: tl.constexpr, dtype: tl.constexpr):
    """The codes at bit SHIFT of bytes, plus `BIAS`, as numbers of a 16-bit type by setting bits alone: a float of this
    exponent counts in ones in its last bits."""
    if dtype == tl.float32 or INTERPRETED:
        return ((packed >> SHIFT) & 15).to(dtype) + (BIAS(dtype) - 8)
    else:
        asm: tl.constexpr = SPREAD(dtype, SHIFT)
        bits = tl.inline_asm_elementwise(asm, "=r,=r,r", [packed], dtype=tl.int16, is_pure=True, pack=4)
        return bits.to(dtype, bitcast=True)


@triton.constexpr_function
def PLACE(byte):
    """PTX: one byte as the first bits of the mantissa of a float32 that is 128 plus it."""
    return f"prmt.b32 $0, $1, 0x43000000, 0x7{byte}44;"


@triton.jit
def code(word, BYTE: tl.constexpr):
    """A byte, at most 127, of 32-bit words, plus 128: `CODE_BIAS` more than the code that is stored in it. float32."""
    if INTERPRETED:
        return ((word >> (8 * BYTE)) & 127).to(tl.float32) + 128
    else:
        asm: tl.constexpr = PLACE(BYTE)
        bits = tl.inline_asm_elementwise(asm, "=r,r", [word], dtype=tl.int32, is_pure=True, pack=1)
        return bits.to(tl.float32, bitcast=True)


@triton.jit
def pack(low, high):
    """Two codes in [-7, 7] in one byte."""
    return ((low + 8).to(tl.int32) | ((high + 8).to(tl.int32) << 4)).to(tl.int8)


@triton.jit
def pack_neighbours(codes):
    """[n] -> [n / 2]: codes 2i and 2i + 1 in one byte."""
    low, high = tl.split(tl.reshape(codes, [codes.shape[0] // 2, 2]))
    return pack(low, high)

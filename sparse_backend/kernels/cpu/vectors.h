// Sixteen lanes at a time. Compiled with -march=native, these types become AVX-512 instructions, pairs of AVX2
// instructions, or plain scalar code; intrinsics stand only where GCC's own translation is poor.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "constants.h"

namespace {

constexpr float LOG2_E = 1.44269504f;

template <int N>
using constant = std::integral_constant<int, N>;

// f(first, count) for all n query heads, four at a time: as many accumulators as there are registers for.
template <class F>
static inline void in_turns(int n, F f) {
  int g = 0;
  for (; g + 4 <= n; g += 4) f(g, constant<4>{});
  switch (n - g) {
    case 3: f(g, constant<3>{}); break;
    case 2: f(g, constant<2>{}); break;
    case 1: f(g, constant<1>{}); break;
  }
}

#define INLINE static inline __attribute__((always_inline))

template <class T>
constexpr bool in_halves = false;

#if defined(__AVX2__) && defined(__F16C__) && !defined(__AVX512F__)
// GCC moves vectors that are wider than the machine's through memory, so here they are two of the machine's.
#define HALVES 1
template <class H>
struct Halves {
  H low, high;
  template <class O>
  explicit operator Halves<O>() const { return {(O)low, (O)high}; }
  auto operator[](int lane) const {
    constexpr int n = sizeof(H) / sizeof(low[0]);
    return lane < n ? low[lane] : high[lane - n];
  }
};
template <class H>
INLINE Halves<H> both(H low, H high) { return {low, high}; }
template <class H>
using lane_of = std::remove_reference_t<decltype(std::declval<H&>()[0])>;
template <class S>
using if_number = std::enable_if_t<std::is_arithmetic_v<S>>;

#define LANEWISE(OP)                                                                                            \
  template <class H>                                                                                            \
  INLINE auto operator OP(Halves<H> a, Halves<H> b) { return both(a.low OP b.low, a.high OP b.high); }          \
  template <class H, class S, class = if_number<S>>                                                             \
  INLINE auto operator OP(Halves<H> a, S b) { return both(a.low OP (lane_of<H>)b, a.high OP (lane_of<H>)b); }   \
  template <class S, class H, class = if_number<S>>                                                             \
  INLINE auto operator OP(S a, Halves<H> b) { return both((lane_of<H>)a OP b.low, (lane_of<H>)a OP b.high); }
LANEWISE(+) LANEWISE(-) LANEWISE(*) LANEWISE(/) LANEWISE(&) LANEWISE(<<) LANEWISE(>>)
LANEWISE(>) LANEWISE(>=) LANEWISE(==)
#undef LANEWISE
template <class H>
INLINE Halves<H> operator-(Halves<H> a) { return {-a.low, -a.high}; }
template <class H, class X>
INLINE Halves<H>& operator+=(Halves<H>& a, X b) { return a = a + b; }
template <class H, class X>
INLINE Halves<H>& operator-=(Halves<H>& a, X b) { return a = a - b; }

typedef float floats8 __attribute__((vector_size(32)));
typedef int32_t ints8 __attribute__((vector_size(32)));
typedef uint32_t uints8 __attribute__((vector_size(32)));
typedef uint8_t bytes32 __attribute__((vector_size(32)));
typedef Halves<floats8> vf;
typedef Halves<ints8> vi;
typedef Halves<uints8> vu;
typedef Halves<bytes32> vbytes;
template <class H>
constexpr bool in_halves<Halves<H>> = true;
#else
typedef float vf __attribute__((vector_size(64), aligned(4)));
typedef int32_t vi __attribute__((vector_size(64), aligned(4)));
typedef uint32_t vu __attribute__((vector_size(64), aligned(4)));
typedef uint8_t vbytes __attribute__((vector_size(64), aligned(1)));
#endif
typedef uint16_t vu16 __attribute__((vector_size(32), aligned(2)));
typedef uint8_t vu8 __attribute__((vector_size(16), aligned(1)));

template <class V, class T>
INLINE V load_as(const T* p) {
  V v;
  if constexpr (in_halves<V>) {
    std::memcpy(&v.low, p, sizeof(V) / 2);
    std::memcpy(&v.high, (const char*)p + sizeof(V) / 2, sizeof(V) / 2);
  } else {
    std::memcpy(&v, p, sizeof(V));
  }
  return v;
}
template <class V, class T>
INLINE void store_as(T* p, V v) {
  if constexpr (in_halves<V>) {
    std::memcpy(p, &v.low, sizeof(V) / 2);
    std::memcpy((char*)p + sizeof(V) / 2, &v.high, sizeof(V) / 2);
  } else {
    std::memcpy(p, &v, sizeof(V));
  }
}

// Where a lane of the mask is set, that of `a`, else that of `b`.
INLINE vf select(vi mask, vf a, vf b) {
#if defined(HALVES)
  return both(mask.low ? a.low : b.low, mask.high ? a.high : b.high);
#else
  return mask ? a : b;
#endif
}
INLINE vf to_float(vi x) {
#if defined(HALVES)
  return both(__builtin_convertvector(x.low, floats8), __builtin_convertvector(x.high, floats8));
#else
  return __builtin_convertvector(x, vf);
#endif
}

struct bf16 { uint16_t bits; };
#if defined(__FLT16_MAX__)
struct fp16 { _Float16 value; };
#endif

INLINE vf load16(const float* p) { return load_as<vf>(p); }
// GCC 12 widens 16 lanes in halves and puts them together again, if left to itself.
INLINE vu widen(vu16 x) {
#if defined(__AVX512F__)
  return (vu)_mm512_cvtepu16_epi32((__m256i)x);
#elif defined(HALVES)
  const __m256i all = (__m256i)x;
  return both((uints8)_mm256_cvtepu16_epi32(_mm256_castsi256_si128(all)),
              (uints8)_mm256_cvtepu16_epi32(_mm256_extracti128_si256(all, 1)));
#else
  return __builtin_convertvector(x, vu);
#endif
}
INLINE vf load16(const bf16* p) { return (vf)(widen(load_as<vu16>(p)) << 16); }
INLINE void store1(float* p, float x) { *p = x; }
INLINE void store1(bf16* p, float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  p->bits = (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);  // round to nearest even
}
INLINE float load1(const float* p) { return *p; }
INLINE float load1(const bf16* p) {
  uint32_t bits = (uint32_t)p->bits << 16;
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
#if defined(__FLT16_MAX__)
typedef _Float16 vh __attribute__((vector_size(32), aligned(2)));
INLINE vf load16(const fp16* p) {
#if defined(__AVX512F__)
  return (vf)_mm512_cvtph_ps((__m256i)load_as<vu16>(p));
#elif defined(HALVES)
  const __m128i* halves = (const __m128i*)p;
  return both((floats8)_mm256_cvtph_ps(_mm_loadu_si128(halves)), (floats8)_mm256_cvtph_ps(_mm_loadu_si128(halves + 1)));
#else
  return __builtin_convertvector(load_as<vh>(p), vf);
#endif
}
INLINE void store1(fp16* p, float x) { p->value = (_Float16)x; }
INLINE float load1(const fp16* p) { return (float)p->value; }
#endif

INLINE void prefetch(const void* p) { __builtin_prefetch(p, 0, 3); }
INLINE void prefetch_all(const void* p, size_t bytes) {
  for (size_t line = 0; line < bytes; line += 64) prefetch((const char*)p + line);
}
INLINE vf splat(float x) { return x - vf{}; }
#if defined(__AVX512F__)
INLINE vf vmax(vf a, vf b) { return (vf)_mm512_max_ps((__m512)a, (__m512)b); }
INLINE vf vmin(vf a, vf b) { return (vf)_mm512_min_ps((__m512)a, (__m512)b); }
#elif defined(HALVES)
INLINE vf vmax(vf a, vf b) { return both(_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)); }
INLINE vf vmin(vf a, vf b) { return both(_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)); }
#else
INLINE vf vmax(vf a, vf b) { return a > b ? a : b; }
INLINE vf vmin(vf a, vf b) { return a < b ? a : b; }
#endif

// lanes i, i + PAGES, i + 2 PAGES ... summed, in every lane; and the largest lane
#if defined(HALVES)
template <int SHIFT, class H>
INLINE H rotate(H v) {
  return __builtin_shuffle(v, (ints8{0, 1, 2, 3, 4, 5, 6, 7} + SHIFT) & 7);
}
template <int PAGES, class H>
INLINE Halves<H> fold(Halves<H> v) {
  if (PAGES == LANES) return v;
  H sum = v.low + v.high;
  if (PAGES <= 4) sum += rotate<4>(sum);
  if (PAGES <= 2) sum += rotate<2>(sum);
  if (PAGES <= 1) sum += rotate<1>(sum);
  return both(sum, sum);
}
INLINE float hmax(vf v) {
  floats8 top = _mm256_max_ps(v.low, v.high);
  top = _mm256_max_ps(top, rotate<4>(top));
  top = _mm256_max_ps(top, rotate<2>(top));
  return std::max(top[0], top[1]);
}
#else
const vi LANE = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

// v[i + shift]
template <int SHIFT, class V>
INLINE V rotate(V v) {
  return __builtin_shuffle(v, (LANE + SHIFT) & (LANES - 1));
}
template <int PAGES, class V>
INLINE V fold(V v) {
  if (PAGES <= 8) v += rotate<8>(v);
  if (PAGES <= 4) v += rotate<4>(v);
  if (PAGES <= 2) v += rotate<2>(v);
  if (PAGES <= 1) v += rotate<1>(v);
  return v;
}
INLINE float hmax(vf v) {
  v = vmax(v, rotate<8>(v));
  v = vmax(v, rotate<4>(v));
  v = vmax(v, rotate<2>(v));
  return std::max(v[0], v[1]);
}
#endif
INLINE float hsum(vf v) { return fold<1>(v)[0]; }

// Sixteen bytes as integers.
INLINE vi widen(vu8 x) {
#if defined(__AVX512F__)
  return (vi)_mm512_cvtepu8_epi32((__m128i)x);
#elif defined(HALVES)
  const __m128i bytes = (__m128i)x;
  return both((ints8)_mm256_cvtepu8_epi32(bytes), (ints8)_mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8)));
#else
  return __builtin_convertvector(x, vi);
#endif
}

// Bytes hold two codes of four bits.
INLINE vbytes low_codes(vbytes x) { return x & 15; }
INLINE vbytes high_codes(vbytes x) { return (vbytes)((vu)x >> 4) & 15; }

// Every lane: sum + the dot product of its four codes of four bits, a byte each, with its four signed bytes of `query`.
INLINE vi dot_nibbles(vi sum, vbytes codes, vbytes query) {
#if defined(__AVX512VNNI__)
  return (vi)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)codes, (__m512i)query);
#elif defined(HALVES)
  auto dot = [](bytes32 c, bytes32 q) {
    const __m256i pairs = _mm256_maddubs_epi16((__m256i)c, (__m256i)q);
    return (ints8)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
  };
  return sum + both(dot(codes.low, query.low), dot(codes.high, query.high));
#else
  vu c = (vu)codes;
  vi q = (vi)query;
  sum += (vi)(c & 15) * (q << 24 >> 24) + (vi)(c >> 8 & 15) * (q << 16 >> 24);
  return sum + (vi)(c >> 16 & 15) * (q << 8 >> 24) + (vi)(c >> 24) * (q >> 24);
#endif
}

// Every lane, to 32 bits: sum + the dot product of its four unsigned bytes of `codes` with four numbers of 16 bits.
// query: those of the vector's 32 even bytes, then those of its odd ones.
INLINE vu dot_bytes(vu sum, vbytes codes, const int16_t* query) {
#if defined(__AVX512VNNI__) && defined(__AVX512BW__)
  const __m512i c = (__m512i)codes, even = _mm512_and_si512(c, _mm512_set1_epi16(255));
  const __m512i total = _mm512_dpwssd_epi32((__m512i)sum, even, (__m512i)load_as<vi>(query));
  return (vu)_mm512_dpwssd_epi32(total, _mm512_srli_epi16(c, 8), (__m512i)load_as<vi>(query + VECTOR / 2));
#elif defined(HALVES)
  const vi even = load_as<vi>(query), odd = load_as<vi>(query + VECTOR / 2);
  auto dot = [](bytes32 c, ints8 even, ints8 odd) {
    const __m256i low = _mm256_and_si256((__m256i)c, _mm256_set1_epi16(255)), high = _mm256_srli_epi16((__m256i)c, 8);
    return (uints8)_mm256_add_epi32(_mm256_madd_epi16(low, (__m256i)even), _mm256_madd_epi16(high, (__m256i)odd));
  };
  return sum + both(dot(codes.low, even.low, odd.low), dot(codes.high, even.high, odd.high));
#else
  const vu c = (vu)codes;
  const vi even = load_as<vi>(query), odd = load_as<vi>(query + VECTOR / 2);
  sum += (c & 255) * (vu)(even << 16 >> 16) + (c >> 16 & 255) * (vu)(even >> 16);
  return sum + (c >> 8 & 255) * (vu)(odd << 16 >> 16) + (c >> 24) * (vu)(odd >> 16);
#endif
}

// 2^x within 2 ulp for -126 <= x <= 100, clamped beyond, so that sums of millions are finite. Logits are to the base 2
// throughout: that saves a multiplication.
INLINE vf exp2(vf x) {
  x = vmin(vmax(x, splat(-126.0f)), splat(100.0f));
#if defined(__AVX512F__)
  const vf whole = (vf)_mm512_roundscale_ps((__m512)x, 0);
#else
  const float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer held in the low mantissa bits
  const vf t = x + magic, whole = t - magic;
#endif
  const vf r = x - whole;
  vf p = r * 1.33908634e-3f + 9.67603192e-3f;
  p = p * r + 5.55035711e-2f;
  p = p * r + 2.40221075e-1f;
  p = p * r + 6.93147188e-1f;
  p = p * r + 1.0f;
#if defined(__AVX512F__)
  return (vf)_mm512_scalef_ps((__m512)p, (__m512)whole);
#else
  return (vf)((vi)p + ((vi)t << 23));
#endif
}

}  // namespace

// The k largest of n non-negative floats.
#pragma once

#include "vectors.h"

namespace {

// The k-th largest value: bisection on the bit pattern, which orders non-negative floats as it orders integers.
// x is padded with zeros to a multiple of LANES.
int32_t kth_largest(const float* x, int n, int k) {
  const int32_t* bits = (const int32_t*)x;
  int padded = (n + LANES - 1) / LANES * LANES;
  int32_t low = 0, high = 0x7f800000;  // count(x >= low) >= k > count(x >= high)
  while (high - low > 1) {
    int32_t middle = low + (high - low) / 2;
    vi count = {};
    for (int i = 0; i < padded; i += LANES) count -= (load_as<vi>(bits + i) >= middle);
    int total = 0;
    for (int i = 0; i < LANES; i++) total += count[i];
    if (total >= k) {
      low = middle;
      if (total == k) break;
    } else {
      high = middle;
    }
  }
  return low;
}

// Indices of the k largest, ascending; among equals the first ones win. x is padded to a multiple of LANES with zeros,
// out has room for LANES more.
int top_k(const float* x, int n, int k, int32_t* out) {
  if (k >= n) {
    for (int i = 0; i < n; i++) out[i] = i;
    return n;
  }
  if (k <= 0) return 0;
  const int32_t* bits = (const int32_t*)x;
  int32_t threshold = kth_largest(x, n, k);
  vi over = {};
  for (int i = 0; i < n; i += LANES) over -= (load_as<vi>(bits + i) > threshold);
  int above = 0, count = 0;
  for (int i = 0; i < LANES; i++) above += over[i];
  int ties = k - above;
#if defined(__AVX512F__)
  const __m512i limit = _mm512_set1_epi32(threshold);
  for (int i = 0; i < n; i += LANES) {
    __m512i v = _mm512_loadu_si512(bits + i);
    const uint32_t real = n - i < LANES ? (1u << (n - i)) - 1 : 0xffff;  // NaNs may leave too few that are numbers
    uint32_t equal = real & _mm512_cmpeq_epi32_mask(v, limit), take = real & _mm512_cmpgt_epi32_mask(v, limit);
    for (; equal && ties > 0; ties--, equal &= equal - 1) take |= equal & -equal;
    __m512i index = (__m512i)(LANE + i);
    _mm512_storeu_si512(out + count, _mm512_maskz_compress_epi32((__mmask16)take, index));
    count += __builtin_popcount(take);
  }
#else
  for (int i = 0; i < n; i++) {
    bool take = bits[i] > threshold;
    if (bits[i] == threshold && ties > 0) { take = true; ties--; }
    out[count] = i;
    count += take;
  }
#endif
  return count;
}

}  // namespace

// How much attention each page may get, by its summary.
#pragma once

#include <cmath>

#include "step.h"

namespace {

// Tiles are scattered, and one takes less time to score than memory takes to answer.
constexpr int TILES_AHEAD = 3;

// What the query heads of one KV head are to the scoring of its tiles.
struct Query {
  const float* spread;  // [num_queries_per_kv][head_size * pages], page fastest: what a page-interleaved tile wants
  const int16_t* codes;  // [num_queries_per_kv][layout.codes], of each vector the even ones first: the query / scale
  const int8_t* coarse;  // [num_queries_per_kv][layout.codes], in fours: the query / (FINE * scale)
  float scale[MAX_QUERIES_PER_KV];
  int32_t coarse_sum[MAX_QUERIES_PER_KV], sum[MAX_QUERIES_PER_KV];
};

Query prepare(const Step& s, const TileLayout& at, const float* query, int pages) {
  const int G = s.num_queries_per_kv, D = s.head_size;
  Query out;
  if (s.selector != LOW_RANK) {
    float* spread = Scratch::grow(scratch.expanded, (size_t)G * D * pages);
    for (int i = 0; i < G * D; i++)
      for (int p = 0; p < pages; p++) spread[(int64_t)i * pages + p] = query[i];
    out.spread = spread;
    return out;
  }
  int16_t* codes = Scratch::grow(scratch.codes, (size_t)G * at.codes);
  int8_t* coarse = Scratch::grow(scratch.coarse, (size_t)G * at.codes);
  std::memset(codes, 0, G * at.codes * sizeof(int16_t));
  std::memset(coarse, 0, G * at.codes);
  for (int g = 0; g < G; g++) {
    vf top = splat(1e-20f);
    for (int d = 0; d < D; d += LANES) {
      vf q = load16(query + g * D + d);
      top = vmax(top, vmax(q, -q));
    }
    const float limit = hmax(top), inverse = (127 * FINE) * (1 / limit);
    out.scale[g] = limit / (127 * FINE);
    out.coarse_sum[g] = out.sum[g] = 0;
    for (int d = 0; d < D; d += 4) {
      int8_t rough[4];
      int16_t even[2], odd[2];
      for (int j = 0; j < 4; j++) {
        const int code = (int)std::nearbyint(query[g * D + d + j] * inverse);
        (j % 2 ? odd : even)[j / 2] = (int16_t)code;
        rough[j] = (int8_t)std::nearbyint(code / (float)FINE);
        out.coarse_sum[g] += rough[j];
        out.sum[g] += code;
      }
      for (int p = 0; p < pages; p++) {
        const int64_t place = in_fours(d, p, pages), vector = place / VECTOR * VECTOR;
        int16_t* to = codes + g * at.codes + vector + (place - vector) / 2;
        std::memcpy(coarse + g * at.codes + place, rough, sizeof(rough));
        std::memcpy(to, even, sizeof(even));
        std::memcpy(to + VECTOR / 2, odd, sizeof(odd));
      }
    }
  }
  out.codes = codes;
  out.coarse = coarse;
  return out;
}

template <int G>
INLINE void dot_bf16(const bf16* x, const float* q, int64_t n, vf* acc) {
  for (int64_t i = 0; i < n; i += LANES) {
    vf c = load16(x + i);
    for (int g = 0; g < G; g++) acc[g] += c * load16(q + g * n + i);
  }
}

template <int PAGES>
INLINE vf per_page(const float* x) {
  float v[LANES];
  for (int i = 0; i < LANES; i += PAGES) std::memcpy(v + i, x, PAGES * sizeof(float));
  return load_as<vf>(v);
}

// Log-mass pieces of every page of one tile: logit[g][page], and mass[g][page] with page mass = mass * 2^logit.
// `next` is a tile to be scored soon.
template <int G, int PAGES>
void score_low_rank(const Step& s, const TileLayout& at, const uint8_t* tile, const uint8_t* next,
                    const Query& query, int first, float* logit, float* mass, int64_t stride) {
  vu m[G] = {};
  vi b[RANK][G] = {};
  const int16_t* codes = query.codes + first * at.codes;
  const int8_t* coarse = query.coarse + first * at.codes;
  for (int64_t i = 0; i < at.codes; i += VECTOR) {
    prefetch(next + i);
    const vbytes mean = load_as<vbytes>(tile + i);
    for (int g = 0; g < G; g++) m[g] = dot_bytes(m[g], mean, codes + g * at.codes + i);
  }
  for (int64_t i = 0; i < at.codes; i += VECTOR) {
    prefetch(next + at.directions + i);
    const vbytes both = load_as<vbytes>(tile + at.directions + i);
    const vbytes low = low_codes(both), high = high_codes(both);
    for (int g = 0; g < G; g++) {
      const vbytes q = load_as<vbytes>(coarse + g * at.codes + i);
      b[0][g] = dot_nibbles(b[0][g], low, q);
      b[1][g] = dot_nibbles(b[1][g], high, q);
    }
  }
  for (int64_t i = 0; i < at.codes / 2; i += VECTOR) {
    prefetch(next + at.third_direction + i);
    const vbytes both = load_as<vbytes>(tile + at.third_direction + i);
    const vbytes low = low_codes(both), high = high_codes(both);
    for (int g = 0; g < G; g++) {
      b[2][g] = dot_nibbles(b[2][g], low, load_as<vbytes>(coarse + g * at.codes + i));
      b[2][g] = dot_nibbles(b[2][g], high, load_as<vbytes>(coarse + g * at.codes + at.codes / 2 + i));
    }
  }
  for (int64_t i = at.coefficients; i < at.end; i += VECTOR) prefetch(next + i);
  const vf mean_scale = per_page<PAGES>((const float*)(tile + at.mean_scale));
  vf mean[G], slope[RANK][G], offset[G], sum[G] = {};
  for (int g = 0; g < G; g++) {
    const float scale = query.scale[first + g] * LOG2_E;
    const vi dot = (vi)fold<PAGES>(m[g]) - 128 * query.sum[first + g];
    mean[g] = to_float(dot) * (mean_scale * scale);
    offset[g] = vf{};
    for (int k = 0; k < RANK; k++) {
      const vf product_scale = per_page<PAGES>((const float*)(tile + at.product_scale) + k * PAGES);
      slope[k][g] = to_float(fold<PAGES>(b[k][g]) - 8 * query.coarse_sum[first + g]) *
                    (product_scale * (FINE * scale));
      offset[g] -= 8.0f * slope[k][g];
    }
  }
  for (int i = 0; i < BLOCK / 2; i += LANES) {
    const vi third = widen(load_as<vu8>(tile + at.third_coefficient + i));
    for (int half = 0; half < 2; half++) {
      const vi both = widen(load_as<vu8>(tile + at.coefficients + half * BLOCK / 2 + i));
      const vf c[RANK] = {to_float(both & 15), to_float(both >> 4), to_float(half == 0 ? third & 15 : third >> 4)};
      for (int g = 0; g < G; g++)
        sum[g] += exp2(offset[g] + slope[0][g] * c[0] + slope[1][g] * c[1] + slope[2][g] * c[2]);
    }
  }
  for (int g = 0; g < G; g++) {
    vf total = fold<PAGES>(sum[g]);
    std::memcpy(logit + g * stride, &mean[g], PAGES * 4);
    std::memcpy(mass + g * stride, &total, PAGES * 4);
  }
}

template <int G, int PAGES>
void score_tile(const Step& s, const TileLayout& at, const uint8_t* tile, const uint8_t* next, const Query& query,
                int first, float* logit, float* mass, int64_t stride) {
  if (s.selector == LOW_RANK) return score_low_rank<G, PAGES>(s, at, tile, next, query, first, logit, mass, stride);
  const int64_t n = (int64_t)s.head_size * PAGES;
  const float* spread = query.spread + first * n;
  vf m[G] = {};
  for (int64_t i = 0; i < at.end; i += VECTOR) prefetch(next + i);
  if (s.selector == BLOCK_MEAN) {
    dot_bf16<G>((const bf16*)tile, spread, n, m);
  } else {  // QUEST: the largest dot product a key inside the page's bounding box can have
    const bf16* low = (const bf16*)tile;
    const bf16* high = low + n;
    for (int64_t i = 0; i < n; i += LANES) {
      vf a = load16(low + i), b = load16(high + i);
      for (int g = 0; g < G; g++) {
        vf q = load16(spread + g * n + i);
        m[g] += vmax(q * a, q * b);
      }
    }
  }
  for (int g = 0; g < G; g++) {
    vf mean = fold<PAGES>(m[g]) * LOG2_E;
    std::memcpy(logit + g * stride, &mean, PAGES * 4);
    for (int p = 0; p < PAGES; p++) mass[g * stride + p] = 1.0f;
  }
}

// All query heads of one KV head.
template <int PAGES>
void score_heads(const Step& s, const TileLayout& at, const uint8_t* tile, const uint8_t* next, const Query& query,
                 float* logit, float* mass, int64_t stride) {
  in_turns(s.num_queries_per_kv, [&](int g, auto heads) {
    score_tile<heads, PAGES>(s, at, tile, next, query, g, logit + g * stride, mass + g * stride, stride);
  });
}

}  // namespace

// Summaries of complete pages.
#pragma once

#include <omp.h>

#include <cmath>

#include "step.h"

namespace {

INLINE void put_nibble(uint8_t& byte, int k, int code) {
  byte = k == 0 ? (uint8_t)((byte & 0xf0) | code) : (uint8_t)((byte & 0x0f) | (code << 4));
}

INLINE int quantise(float x, float inverse, int limit) {
  int c = (int)std::nearbyint(x * inverse);
  return std::max(-limit, std::min(limit, c));
}

constexpr float TINY = 1e-20f;

// The direction in which the columns of key[d][t] spread most (not normalised): power iteration on their Gram matrix.
// C: registers that hold a page's tokens.
template <int C>
void largest_spread(const float* key, int D, float* direction) {
  constexpr int PS = C * LANES;
  vf gram[PS][C] = {}, u[C];
  for (int d = 0; d < D; d++) {
    vf keys[C];
    for (int c = 0; c < C; c++) keys[c] = load16(key + d * PS + c * LANES);
    for (int i = 0; i < PS; i++)
      for (int c = 0; c < C; c++) gram[i][c] += key[d * PS + i] * keys[c];
  }
  int start = 0;
  auto diagonal = [&](int i) { return gram[i][i / LANES][i % LANES]; };
  for (int i = 1; i < PS; i++)
    if (diagonal(i) > diagonal(start)) start = i;
  for (int c = 0; c < C; c++) u[c] = gram[start][c];
  for (int iteration = 0; iteration < POWER_ITERATIONS; iteration++) {
    float scalars[PS];
    vf next[C] = {}, norm = {};
    std::memcpy(scalars, u, sizeof(scalars));
    for (int i = 0; i < PS; i++)
      for (int c = 0; c < C; c++) next[c] += gram[i][c] * scalars[i];
    for (int c = 0; c < C; c++) norm += next[c] * next[c];
    const float inverse = 1.0f / std::sqrt(std::max(hsum(norm), 1e-30f));
    for (int c = 0; c < C; c++) u[c] = next[c] * inverse;
  }
  for (int d = 0; d < D; d++) {
    vf sum = {};
    for (int c = 0; c < C; c++) sum += load16(key + d * PS + c * LANES) * u[c];
    direction[d] = hsum(sum);
  }
}

// key[d][t] of one complete page -> int8 mean; RANK times an int4 direction and its int4 coefficient for each token.
// What a step lost to rounding is left to the next one. Dimensions are `width` apart; tokens beyond the page are zeros.
template <int ps>
void summarise_low_rank(float* key, int D, int p, const TileLayout& at, uint8_t* tile) {
  constexpr int pages = BLOCK / ps, C = (ps + LANES - 1) / LANES, width = C * LANES;
  float direction[MAX_HEAD_SIZE], coefficient[BLOCK];
  float top = TINY;
  for (int d = 0; d < D; d++) {
    float sum = 0;
    for (int t = 0; t < ps; t++) sum += key[d * width + t];
    direction[d] = sum / ps;
    top = std::max(top, std::fabs(direction[d]));
  }
  const float mean_scale = top / 127;
  ((float*)(tile + at.mean_scale))[p] = mean_scale;
  for (int d = 0; d < D; d++) {
    int code = quantise(direction[d], 127 * (1 / top), 127);
    tile[in_fours(d, p, pages)] = (uint8_t)(code + 128);
    for (int t = 0; t < ps; t++) key[d * width + t] -= code * mean_scale;
  }
  auto put = [&](int64_t pairs, int64_t third, int64_t half, int k, int64_t i, int code) {
    if (k < 2) put_nibble(tile[pairs + i], k, code);
    else put_nibble(tile[third + i % half], i >= half, code);
  };
  for (int k = 0; k < RANK; k++) {
    largest_spread<C>(key, D, direction);
    top = TINY;
    for (int d = 0; d < D; d++) top = std::max(top, std::fabs(direction[d]));
    float length = TINY;
    for (int d = 0; d < D; d++) {
      direction[d] = (float)quantise(direction[d], 7 * (1 / top), 7);
      put(at.directions, at.third_direction, at.codes / 2, k, in_fours(d, p, pages), (int)direction[d] + 8);
      length += direction[d] * direction[d];
    }
    std::memset(coefficient, 0, sizeof(float) * ps);
    for (int d = 0; d < D; d++)
      for (int t = 0; t < ps; t++) coefficient[t] += key[d * width + t] * direction[d];
    top = TINY;
    for (int t = 0; t < ps; t++) {
      coefficient[t] /= length;
      top = std::max(top, std::fabs(coefficient[t]));
    }
    const float product_scale = top / 7;
    ((float*)(tile + at.product_scale))[k * pages + p] = product_scale;
    for (int t = 0; t < ps; t++) {
      int code = quantise(coefficient[t], 7 * (1 / top), 7);
      put(at.coefficients, at.third_coefficient, BLOCK / 2, k, t * pages + p, code + 8);
      coefficient[t] = code * product_scale;
    }
    for (int d = 0; d < D; d++)
      for (int t = 0; t < ps; t++) key[d * width + t] -= direction[d] * coefficient[t];
  }
}

template <class T>
void update_summaries(const Step& s, const T* cache, uint8_t* tiles, const int32_t* requests, const int32_t* starts,
                 int num_requests) {
  const int ps = s.page_size, pages = BLOCK / ps, D = s.head_size;
  const TileLayout at(s.selector, D, pages);
  if (at.end == 0) return;
  // One task a (request, block, KV head) whose pages were completed; `offset` finds the request of a block.
  thread_local std::vector<int32_t> offset;
  offset.assign(num_requests + 1, 0);
  for (int i = 0; i < num_requests; i++) {
    int first = starts[i] / ps / pages, complete = s.seq_lens[requests[i]] / ps;
    int blocks = complete > starts[i] / ps ? (complete + pages - 1) / pages - first : 0;
    offset[i + 1] = offset[i] + blocks;
  }
  const int32_t* offsets = offset.data();
  const int tasks = offset[num_requests] * s.kv_heads;
  if (tasks == 0) return;
#pragma omp parallel for schedule(dynamic, 4) if (tasks > 4 * omp_get_max_threads())
  for (int task = 0; task < tasks; task++) {
    const int block_task = task / s.kv_heads, head = task % s.kv_heads;
    const int i = (int)(std::upper_bound(offsets, offsets + num_requests + 1, block_task) - offsets) - 1;
    const int block = starts[i] / ps / pages + block_task - offsets[i];
    const int32_t* table = s.block_table + (int64_t)requests[i] * s.table_stride;
    const int first = std::max(block * pages, starts[i] / ps);
    const int end = std::min((block + 1) * pages, s.seq_lens[requests[i]] / ps);
    uint8_t* tile = tile_of(s, tiles, table, block, head);
    const int width = s.kernel_block_tokens;
    float* key = Scratch::grow(scratch.logits, (size_t)D * width);
    for (int page = first; page < end; page++) {
      const T* keys = keys_of(s, cache, table, page, head);
      const int p = page % pages;
      for (int e = 0; e < D * width; e += LANES) store_as(key + e, load16(keys + e));
      if (ps < width)
        for (int d = 0; d < D; d++) std::fill(key + d * width + ps, key + (d + 1) * width, 0.0f);
      if (s.selector == LOW_RANK) {
        switch (ps) {
          case 8: summarise_low_rank<8>(key, D, p, at, tile); break;
          case 16: summarise_low_rank<16>(key, D, p, at, tile); break;
          case 32: summarise_low_rank<32>(key, D, p, at, tile); break;
          case 64: summarise_low_rank<64>(key, D, p, at, tile); break;
        }
      } else {
        bf16* low = (bf16*)tile;
        bf16* high = low + (int64_t)D * pages;
        for (int d = 0; d < D; d++) {
          const float* k = key + d * width;
          if (s.selector == BLOCK_MEAN) {
            float sum = 0;
            for (int t = 0; t < ps; t++) sum += k[t];
            store1(low + d * pages + p, sum / ps);
          } else {
            store1(low + d * pages + p, *std::min_element(k, k + ps));
            store1(high + d * pages + p, *std::max_element(k, k + ps));
          }
        }
      }
    }
    if (s.selector == LOW_RANK) {  // mean values of those that a new page belongs to, over their complete pages
      float* sum = Scratch::grow(scratch.out, (size_t)D);
      for (int m = first % pages / at.mean_pages; block * pages + m * at.mean_pages < end; m++) {
        const int begin = block * pages + m * at.mean_pages, stop = std::min(begin + at.mean_pages, end);
        std::fill(sum, sum + D, 0.0f);
        for (int t = begin * ps; t < stop * ps; t++) {
          const T* value = value_of(s, cache, table, t, head);
          for (int d = 0; d < D; d += LANES) store_as(sum + d, load16(sum + d) + load16(value + d));
        }
        const float inverse = 1.0f / ((stop - begin) * ps);
        float top = TINY;
        for (int d = 0; d < D; d++) top = std::max(top, std::fabs(sum[d] *= inverse));
        ((float*)(tile + at.value_scale))[m] = top / 7;
        for (int d = 0; d < D; d++)
          put_nibble(tile[at.mean_value + m / 2 * D + d], m % 2, quantise(sum[d], 7 * (1 / top), 7) + 8);
      }
    }
  }
}

}  // namespace

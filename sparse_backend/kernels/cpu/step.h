// What one engine step asks for, where summaries stand in a tile, and each thread's working memory.
#pragma once

#include <cmath>
#include <vector>

#include "vectors.h"

// What holds for every layer of one step. The layout is mirrored by ctypes in ../native.py.
struct Step {
  int32_t dtype, selector;
  int32_t kv_heads, num_queries_per_kv, head_size, page_size, kernel_block_tokens;
  int32_t block_stride, block_content;  // kernel blocks, where tiles follow their block; else INT32_MAX and 0
  int32_t sink_tokens, local_tokens;
  int32_t num_requests;      // that take the sparse path
  int32_t table_stride;      // entries of block_table for a request
  int64_t tile_stride;       // bytes between tiles
  float scale, soft_cap;     // soft_cap: 0 for none
  int32_t max_pages;         // entries of page_table for a request and KV head
  const int32_t* requests;   // [num_requests] place of each in the batch
  const int32_t* token;      // [num_requests] place of its query in query and output
  const int32_t* key_tokens;    // [num_requests] tokens whose keys are read, a multiple of page_size
  const int32_t* value_tokens;  // [num_requests] tokens whose values are read
  const int32_t* seq_lens;      // [batch]
  const int32_t* block_table;   // [batch, table_stride] kernel blocks
  const float* sinks;           // [query heads] or null
  int64_t query_stride, output_stride;  // elements between tokens
};

namespace {

struct Scratch {
  std::vector<float> query, expanded, estimate, score, logits, weight, packed, out, residual;
  std::vector<int16_t> codes;
  std::vector<int8_t> coarse;
  std::vector<int32_t> pages, tokens;
  std::vector<const uint8_t*> tiles;
  template <class T>
  static T* grow(std::vector<T>& v, size_t n) {
    if (v.size() < n) v.resize(n);
    return v.data();
  }
};
thread_local Scratch scratch;

// Element (d, page) of a tile's codes. Integer dot products sum four neighbouring bytes, so a page has four in turn.
INLINE int64_t in_fours(int d, int p, int pages) { return ((int64_t)(d / 4) * pages + p) * 4 + d % 4; }

// Four-bit codes lie in pairs: those of directions 0 and 1, and their coefficients, in one byte each; those of
// direction 2 with its own second half; those of a mean value with the next one's.
struct TileLayout {
  int64_t codes;  // bytes of the mean, and of two directions: one for each dimension and page, in whole vectors
  int64_t directions, third_direction, coefficients, third_coefficient, mean_scale, product_scale;
  int64_t mean_value, value_scale, end;
  int mean_pages, means;  // pages that share a mean value, and mean values of a tile (an even number)
  TileLayout(int selector, int head_size, int pages) {
    int64_t n = (int64_t)head_size * pages;
    mean_pages = std::max(1, MEAN_TOKENS * pages / BLOCK);
    means = pages / mean_pages;
    codes = (n + 2 * VECTOR - 1) / (2 * VECTOR) * (2 * VECTOR);
    directions = codes;
    third_direction = directions + codes;
    coefficients = third_direction + codes / 2;
    third_coefficient = coefficients + BLOCK;
    mean_scale = third_coefficient + BLOCK / 2;
    product_scale = mean_scale + 4 * pages;
    mean_value = product_scale + RANK * 4 * pages;
    value_scale = mean_value + means / 2 * head_size;
    end = value_scale + 4 * means;
    if (selector != LOW_RANK) end = selector == QUEST ? 4 * n : selector == BLOCK_MEAN ? 2 * n : 0;
  }
};

// The tile of block `block` of a request, for one KV head. tiles: bytes, const or not; table: the request's kernel
// blocks.
template <class Byte>
INLINE Byte* tile_of(const Step& s, Byte* tiles, const int32_t* table, int block, int head) {
  const int per_tile = BLOCK / s.kernel_block_tokens, first = table[block * per_tile];
  const int tile = first / s.block_stride * s.block_stride + s.block_content + first % s.block_stride / per_tile;
  return tiles + ((int64_t)tile * s.kv_heads + head) * s.tile_stride;
}

// Keys of a page of a request, for one KV head: element (d, t) at [d * kernel_block_tokens + t].
template <class T>
INLINE const T* keys_of(const Step& s, const T* cache, const int32_t* table, int page, int head) {
  const int token = page * s.page_size;
  const int size = s.kernel_block_tokens;
  const int64_t block = (int64_t)table[token / size] * s.kv_heads + head;
  return cache + block * size * 2 * s.head_size + token % size;
}

// The value of a token of a request, for one KV head.
template <class T>
INLINE const T* value_of(const Step& s, const T* cache, const int32_t* table, int token, int head) {
  const int size = s.kernel_block_tokens;
  const int64_t block = (int64_t)table[token / size] * s.kv_heads + head;
  return cache + (block * 2 * size + size + token % size) * s.head_size;
}

// The tiles of all blocks that `pages` pages of a request touch, for one KV head.
const uint8_t* const* tiles_of(const Step& s, const uint8_t* tiles, const int32_t* table, int pages, int head) {
  const int blocks = (pages * s.page_size + BLOCK - 1) / BLOCK;
  const uint8_t** out = Scratch::grow(scratch.tiles, blocks);
  for (int b = 0; b < blocks; b++) out[b] = tile_of(s, tiles, table, b, head);
  return out;
}

struct Request {
  int tokens, pages, sink, local, candidates;  // candidate pages: [sink, local)
  const int32_t* table;
};

INLINE Request request_of(const Step& s, int i) {
  Request r;
  int b = s.requests[i];
  r.tokens = s.seq_lens[b];
  r.table = s.block_table + (int64_t)b * s.table_stride;
  r.pages = (r.tokens + s.page_size - 1) / s.page_size;
  r.sink = std::min(r.pages, (s.sink_tokens + s.page_size - 1) / s.page_size);
  r.local = std::max(r.sink, std::max(0, r.tokens - std::max(1, s.local_tokens)) / s.page_size);
  r.candidates = r.local - r.sink;
  return r;
}

// Logits, to the base 2 as everywhere, bounded smoothly: cap * tanh(x / cap). x: whole vectors.
INLINE void soft_cap(const Step& s, float* x, int n) {
  if (s.soft_cap <= 0) return;
  const float cap = s.soft_cap * LOG2_E;
  for (int i = 0; i < n; i += LANES) {
    const vf doubled = exp2(load16(x + i) * (2 * LOG2_E / cap));
    store_as(x + i, cap - 2 * cap / (doubled + 1.0f));
  }
}

// The logit without a value of a query head, to the base 2.
INLINE float sink_of(const Step& s, int head, int g) {
  return s.sinks ? s.sinks[head * s.num_queries_per_kv + g] * LOG2_E : -INFINITY;
}

template <class T>
const float* load_query(const Step& s, const T* query, int request, int head) {
  float* out = Scratch::grow(scratch.query, s.num_queries_per_kv * s.head_size);
  const T* q = query + s.token[request] * s.query_stride + (int64_t)head * s.num_queries_per_kv * s.head_size;
  for (int i = 0; i < s.num_queries_per_kv * s.head_size; i++) out[i] = load1(q + i) * s.scale;
  return out;
}

}  // namespace

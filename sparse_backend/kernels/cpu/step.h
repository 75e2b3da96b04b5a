// What one engine step asks for, where summaries stand in a tile, and each thread's working memory.
#pragma once

#include <vector>

#include "vectors.h"

// What holds for every layer of one step. The layout is mirrored by ctypes in ../native.py.
struct Step {
  int32_t dtype, selector;
  int32_t kv_heads, group, head_size, page_size;
  int32_t block_pages, content_pages;  // of blocks that keep their tiles behind their pages; else INT32_MAX and 0
  int32_t sink_tokens, local_tokens;
  int32_t num_rows;          // requests that take the sparse path
  int32_t table_stride;      // entries per row of block_table
  int64_t tile_stride;       // bytes between tiles
  float scale;
  int32_t max_pages;         // row length of page_table
  const int32_t* rows;       // [num_rows] batch row of each sparse request
  const int32_t* token;      // [num_rows] its query's row in query and output
  const int32_t* key_tokens;    // [num_rows] tokens whose keys are read, a multiple of page_size
  const int32_t* value_tokens;  // [num_rows] tokens whose values are read
  const int32_t* seq_lens;      // [batch]
  const int32_t* block_table;   // [batch, table_stride] page numbers
  int64_t query_stride, output_stride;  // elements between tokens
};

namespace {

constexpr int BLOCK = 128;  // tokens a tile summarises
constexpr int RANK = 2;     // directions of a low-rank page summary: one a nibble
constexpr int FINE = 254;   // steps of a query's fine code in one of its coarse code

enum DType : int32_t { BF16 = 0, FP16 = 1, FP32 = 2 };
enum Selector : int32_t { EXACT = 0, BLOCK_MEAN = 1, QUEST = 2, LOW_RANK = 3 };

struct Scratch {
  std::vector<float> query, expanded, estimate, score, logits, weight, packed, out, residual;
  std::vector<int8_t> codes;
  std::vector<int32_t> pages, tokens;
  template <class T>
  static T* grow(std::vector<T>& v, size_t n) {
    if (v.size() < n) v.resize(n);
    return v.data();
  }
};
thread_local Scratch scratch;

// Element (d, page) of a tile's codes. Integer dot products sum four neighbouring bytes, so a page has four in turn.
INLINE int64_t in_fours(int d, int p, int pages) { return ((int64_t)(d / 4) * pages + p) * 4 + d % 4; }

struct TileLayout {
  int64_t codes;  // bytes of the mean, and of the directions: a byte for each dimension and page, in whole vectors
  int64_t directions, coefficients, mean_scale, product_scale, value_mean, end;
  TileLayout(int selector, int head_size, int pages) {
    int64_t n = (int64_t)head_size * pages;
    codes = directions = coefficients = mean_scale = product_scale = 0;
    if (selector == LOW_RANK) {
      codes = (n + VECTOR - 1) / VECTOR * VECTOR;
      directions = codes;
      coefficients = directions + codes;
      mean_scale = coefficients + BLOCK;
      product_scale = mean_scale + 4 * pages;
      value_mean = product_scale + RANK * 4 * pages;
      end = value_mean + 2 * head_size;
    } else {
      value_mean = end = selector == QUEST ? 4 * n : selector == BLOCK_MEAN ? 2 * n : 0;
    }
  }
};

// The tile of block `block` of a request, for one KV head. tiles: bytes, const or not. table: the request's pages.
template <class Byte>
INLINE Byte* tile_of(const Step& s, Byte* tiles, const int32_t* table, int block, int head) {
  const int pages = BLOCK / s.page_size, page = table[block * pages];
  const int tile = page / s.block_pages * s.block_pages + s.content_pages + page % s.block_pages / pages;
  return tiles + ((int64_t)tile * s.kv_heads + head) * s.tile_stride;
}

struct Row {
  int tokens, pages, sink, local, candidates;  // candidate pages: [sink, local)
  const int32_t* table;
};

INLINE Row row_of(const Step& s, int i) {
  Row r;
  int b = s.rows[i];
  r.tokens = s.seq_lens[b];
  r.table = s.block_table + (int64_t)b * s.table_stride;
  r.pages = (r.tokens + s.page_size - 1) / s.page_size;
  r.sink = std::min(r.pages, (s.sink_tokens + s.page_size - 1) / s.page_size);
  r.local = std::max(r.sink, std::max(0, r.tokens - std::max(1, s.local_tokens)) / s.page_size);
  r.candidates = r.local - r.sink;
  return r;
}

template <class T>
const float* load_query(const Step& s, const T* query, int row, int head) {
  float* out = Scratch::grow(scratch.query, s.group * s.head_size);
  const T* q = query + s.token[row] * s.query_stride + (int64_t)head * s.group * s.head_size;
  for (int i = 0; i < s.group * s.head_size; i++) out[i] = load1(q + i) * s.scale;
  return out;
}

}  // namespace

// Sparse decode attention over vLLM's paged KV cache on CPU. Three operations, the same as in ../reference.py, which
// defines what they compute: update_summaries, select_pages, attend_pages. `decode` runs the last two back to back.
//
// Compiled at first use for the machine it runs on (-march=native): see vectors.h.
//
// Cache of one layer; a kernel block, vLLM's, has n = `kernel_block_tokens` consecutive tokens: one page of
// `page_size`, or two of 8.
//   keys   [kernel blocks, kv_heads, head_size, n]   values follow those of each (kernel block, head) as [n, head_size]
//   tiles  [num_blocks, kv_heads, tile_stride] bytes, a tile summarising the BLOCK tokens of one (block, head);
//          what stands for keys is interleaved, so that lanes are pages: see TileLayout in step.h.

#include <omp.h>

#include "attention.h"
#include "selection.h"
#include "summaries.h"

namespace {

template <class T>
void decode_all(const Step& s, const T* query, const T* cache, const uint8_t* tiles, T* output) {
  const int tasks = s.num_requests * s.kv_heads;
#pragma omp parallel for schedule(dynamic, 1)
  for (int task = 0; task < tasks; task++) {
    const int i = task % s.num_requests, head = task / s.num_requests;
    const Request r = request_of(s, i);
    const float* q = load_query(s, query, i, head);
    const uint8_t* const* tile = tiles_of(s, tiles, r.table, r.pages, head);
    const int64_t stride = (r.pages + LANES) / LANES * LANES + BLOCK / LANES;
    float* dropped = Scratch::grow(scratch.packed, s.num_queries_per_kv * stride);
    int32_t* selected = Scratch::grow(scratch.pages, r.pages + LANES);
    float peak[MAX_QUERIES_PER_KV];
    int count = select_pages(s, tile, q, r, head, s.key_tokens[i], selected, dropped, stride, peak);
    attend(s, cache, tile, q, r, head, s.value_tokens[i], selected, count, dropped, stride, peak,
               output + s.token[i] * s.output_stride + (int64_t)head * s.num_queries_per_kv * s.head_size);
  }
}

template <class T>
void select_all(const Step& s, const T* query, const uint8_t* tiles, int32_t* page_table, int32_t* counts) {
  const int tasks = s.num_requests * s.kv_heads;
#pragma omp parallel for schedule(dynamic, 1)
  for (int task = 0; task < tasks; task++) {
    const int i = task % s.num_requests, head = task / s.num_requests;
    const Request r = request_of(s, i);
    const float* q = load_query(s, query, i, head);
    const uint8_t* const* tile = tiles_of(s, tiles, r.table, r.pages, head);
    const int64_t stride = (r.pages + LANES) / LANES * LANES + BLOCK / LANES;
    float* dropped = Scratch::grow(scratch.packed, s.num_queries_per_kv * stride);
    int32_t* selected = Scratch::grow(scratch.pages, r.pages + LANES);
    float peak[MAX_QUERIES_PER_KV];
    const int row = i * s.kv_heads + head;
    counts[row] = select_pages(s, tile, q, r, head, s.key_tokens[i], selected, dropped, stride, peak);
    std::memcpy(page_table + (int64_t)row * s.max_pages, selected, sizeof(int32_t) * counts[row]);
  }
}

}  // namespace

#if defined(__FLT16_MAX__)
#define FP16_CASE(CALL) case FP16: { using T = fp16; CALL; return 0; }
#else
#define FP16_CASE(CALL)
#endif
#define DISPATCH(CALL)                            \
  switch (s->dtype) {                             \
    case BF16: { using T = bf16; CALL; return 0; } \
    case FP32: { using T = float; CALL; return 0; } \
    FP16_CASE(CALL)                               \
  }                                               \
  return 1;

extern "C" {

// A constant by its name, or -1.
int64_t sparse_constant(const char* name) {
  const struct { const char* name; int64_t value; } all[] = {
      {"BLOCK", BLOCK}, {"RANK", RANK}, {"MEAN_TOKENS", MEAN_TOKENS}, {"FINE", FINE},
      {"POWER_ITERATIONS", POWER_ITERATIONS}, {"VECTOR", VECTOR}, {"HEAD_SIZE_MULTIPLE", LANES},
      {"MAX_QUERIES_PER_KV", MAX_QUERIES_PER_KV}, {"MAX_HEAD_SIZE", MAX_HEAD_SIZE}, {"step_bytes", sizeof(Step)},
      {"float32", FP32}, {"bfloat16", BF16},
#if defined(__FLT16_MAX__)
      {"float16", FP16},
#endif
      {"exact", EXACT}, {"block_mean", BLOCK_MEAN}, {"quest", QUEST}, {"low_rank", LOW_RANK},
  };
  for (const auto& constant : all)
    if (std::strcmp(constant.name, name) == 0) return constant.value;
  return -1;
}

int64_t sparse_tile_bytes(int32_t selector, int32_t head_size, int32_t page_size) {
  return TileLayout(selector, head_size, BLOCK / page_size).end;
}

// Summarises the pages that the tokens from starts[i] on completed, for those requests[i] of the batch.
int32_t sparse_update_summaries(const Step* s, const void* cache, uint8_t* tiles, const int32_t* requests,
                                const int32_t* starts, int32_t num_requests) {
  DISPATCH(update_summaries<T>(*s, (const T*)cache, tiles, requests, starts, num_requests))
}

int32_t sparse_select_pages(const Step* s, const void* query, const uint8_t* tiles, int32_t* page_table,
                            int32_t* counts) {
  DISPATCH(select_all<T>(*s, (const T*)query, tiles, page_table, counts))
}

int32_t sparse_decode(const Step* s, const void* query, const void* cache, const uint8_t* tiles, void* output) {
  DISPATCH(decode_all<T>(*s, (const T*)query, (const T*)cache, tiles, (T*)output))
}

}  // extern "C"

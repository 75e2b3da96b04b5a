// The pages that a request attends to, for one KV head.
#pragma once

#include "scoring.h"
#include "top_k.h"

namespace {

// Writes the logical numbers of the selected pages, ascending, and for every page dropped its estimated mass:
// dropped[g][page] * 2^(peak[g]) estimates the sum of 2^logit over the page's tokens (0 for a page kept).
// Returns the number of selected pages.
int select_pages(const Step& s, const uint8_t* const* tiles, const float* query, const Request& r, int head, int key_tokens,
               int32_t* selected, float* dropped, int64_t stride, float* peak) {
  const int ps = s.page_size, pages = BLOCK / ps, D = s.head_size;
  for (int g = 0; g < s.num_queries_per_kv; g++) {
    std::memset(dropped + g * stride, 0, stride * sizeof(float));
    peak[g] = -INFINITY;
  }
  int wanted = key_tokens / ps - r.sink - (r.pages - r.local);
  if (s.selector == EXACT || wanted >= r.candidates) {
    for (int i = 0; i < r.pages; i++) selected[i] = i;
    return r.pages;
  }
  wanted = std::max(wanted, 0);

  const TileLayout at(s.selector, D, pages);
  const Query prepared = prepare(s, at, query, pages);
  float* logit = Scratch::grow(scratch.estimate, (size_t)s.num_queries_per_kv * stride);
  const int complete = r.tokens / ps, blocks = (complete + pages - 1) / pages;
  for (int b = 0; b < blocks; b++) {
    const uint8_t *tile = tiles[b], *next = tiles[std::min(b + TILES_AHEAD, blocks - 1)];
    float *l = logit + b * pages, *d = dropped + b * pages;
    switch (pages) {
      case 16: score_heads<16>(s, at, tile, next, prepared, l, d, stride); break;
      case 8: score_heads<8>(s, at, tile, next, prepared, l, d, stride); break;
      case 4: score_heads<4>(s, at, tile, next, prepared, l, d, stride); break;
      case 2: score_heads<2>(s, at, tile, next, prepared, l, d, stride); break;
    }
  }

  if (s.soft_cap > 0) {  // as if a page's tokens had equal shares of its mass
    const int whole = (complete + LANES - 1) / LANES * LANES;
    const float share = std::log2((float)ps);
    for (int g = 0; g < s.num_queries_per_kv; g++) {
      float *l = logit + g * stride, *d = dropped + g * stride;
      for (int i = 0; i < complete; i++) l[i] += std::log2(d[i]) - share;
      for (int i = complete; i < whole; i++) l[i] = 0;
      soft_cap(s, l, whole);
      for (int i = 0; i < complete; i++) d[i] = (float)ps;
    }
  }

  // Page score: the softmax over all complete pages, summed over the query heads; block_mean averages logits instead.
  const int padded = (complete + LANES - 1) / LANES * LANES;
  float* score = Scratch::grow(scratch.score, padded + LANES);
  std::fill(score, score + padded + LANES, 0.0f);
  if (s.selector == BLOCK_MEAN) {
    float low = INFINITY;
    for (int i = r.sink; i < r.local; i++) {
      for (int g = 0; g < s.num_queries_per_kv; g++) score[i] += logit[g * stride + i];
      low = std::min(low, score[i]);
    }
    for (int i = r.sink; i < r.local; i++) score[i] -= low;  // top_k wants non-negative numbers
  } else {
    for (int g = 0; g < s.num_queries_per_kv; g++) {
      float* l = logit + g * stride;
      float* d = dropped + g * stride;
      for (int i = complete; i < padded; i++) {
        l[i] = -INFINITY;
        d[i] = 0.0f;
      }
      const float sink = sink_of(s, head, g);
      vf top = splat(sink), sum = {};
      for (int i = 0; i < padded; i += LANES) top = vmax(top, load16(l + i));
      peak[g] = hmax(top);
      for (int i = 0; i < padded; i += LANES) {
        vf w = load16(d + i) * exp2(load16(l + i) - peak[g]);
        store_as(d + i, w);
        sum += w;
      }
      const float inverse = 1.0f / (hsum(sum) + (s.sinks ? std::exp2(sink - peak[g]) : 0.0f));
      for (int i = 0; i < padded; i += LANES) store_as(score + i, load16(score + i) + load16(d + i) * inverse);
    }
  }
  std::fill(score + r.local, score + padded + LANES, 0.0f);  // not for top_k to choose

  int count = 0;
  for (int i = 0; i < r.sink; i++) selected[count++] = i;
  int taken = top_k(score + r.sink, r.candidates, wanted, selected + count);
  for (int i = 0; i < taken; i++) selected[count + i] += r.sink;
  count += taken;
  for (int i = r.local; i < r.pages; i++) selected[count++] = i;
  for (int g = 0; g < s.num_queries_per_kv; g++) {
    float* d = dropped + g * stride;
    for (int i = 0; i < count; i++) d[selected[i]] = 0.0f;
    for (int i = 0; i < r.sink; i++) d[i] = 0.0f;
    for (int i = r.local; i < complete; i++) d[i] = 0.0f;
  }
  return count;
}

}  // namespace

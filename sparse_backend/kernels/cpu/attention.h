// Attention over the selected pages: exact for the keys read, estimated for the rest.
#pragma once

#include <cmath>
#include <numeric>

#include "step.h"
#include "top_k.h"

namespace {

// Pages and values are scattered, and one takes less time to read than memory takes to answer.
constexpr int PAGES_AHEAD = 4;
constexpr int VALUES_AHEAD = 24;  // a multiple of 8

// Logits of a page's tokens, in whole vectors: what follows a page of 8 is for the next page to overwrite.
template <class T, int G>
INLINE void page_logits(const Step& s, const T* keys, const T* next, const float* query, float* out, int64_t stride) {
  const int64_t width = s.kernel_block_tokens, D = s.head_size;
  for (int t = 0; t < s.page_size; t += LANES) {
    vf even[G] = {}, odd[G] = {};
    for (int d = 0; d < D; d += 2) {
      prefetch(next + d * width + t);
      vf k = load16(keys + d * width + t), l = load16(keys + (d + 1) * width + t);
      for (int g = 0; g < G; g++) {
        even[g] += k * query[g * D + d];
        odd[g] += l * query[g * D + d + 1];
      }
    }
    for (int g = 0; g < G; g++) store_as(out + g * stride + t, (even[g] + odd[g]) * LOG2_E);
  }
}

// out[g][d] += weight[g][mean] * code[mean][d] for C vectors of d, over all mean values of a request.
template <int G, int C>
void add_codes(const uint8_t* const* tiles, int blocks, int d, int D, const TileLayout& at, const float* weight,
               float* out) {
  const int means = blocks * at.means;
  vf acc[G][C];
  for (int g = 0; g < G; g++)
    for (int c = 0; c < C; c++) acc[g][c] = load16(out + g * D + c * LANES);
  for (int b = 0; b < blocks; b++) {
    for (int m = 0; m < at.means; m += 2) {
      const uint8_t* codes = tiles[b] + at.mean_value + m / 2 * D + d;
      const float* w = weight + b * at.means + m;
      for (int c = 0; c < C; c++) {
        const vi both = widen(load_as<vu8>(codes + c * LANES));
        const vf low = to_float(both & 15), high = to_float(both >> 4);
        for (int g = 0; g < G; g++) acc[g][c] += low * w[g * means] + high * w[g * means + 1];
      }
    }
  }
  for (int g = 0; g < G; g++)
    for (int c = 0; c < C; c++) store_as(out + g * D + c * LANES, acc[g][c]);
}

// out[g][d] += the mean values of a request, weighted by rest[g][mean].
void add_mean_values(const Step& s, const uint8_t* const* tiles, int blocks, const TileLayout& at, float* rest,
                     float* out) {
  const int D = s.head_size, means = blocks * at.means;
  for (int g = 0; g < s.num_queries_per_kv; g++) {
    float* weight = rest + (int64_t)g * means;
    float offset = 0;
    for (int b = 0; b < blocks; b++) {
      const float* scale = (const float*)(tiles[b] + at.value_scale);
      for (int m = 0; m < at.means; m++, weight++) {
        *weight = *weight > 0 ? *weight * scale[m] : 0.0f;  // a mean of no page has no scale
        offset += 8 * *weight;
      }
    }
    for (int d = 0; d < D; d += LANES) store_as(out + g * D + d, load16(out + g * D + d) - offset);
  }
  in_turns(s.num_queries_per_kv, [&](int g, auto heads) {
    int d = 0;
    auto add = [&](auto vectors) {
      add_codes<heads, vectors>(tiles, blocks, d, D, at, rest + (int64_t)g * means, out + g * D + d);
      d += vectors * LANES;
    };
    while (d + 4 * LANES <= D) add(constant<4>{});
    while (d < D) add(constant<1>{});
  });
}

template <class T>
void attend(const Step& s, const T* cache, const uint8_t* const* tiles, const float* query, const Request& r, int head,
                int value_tokens, const int32_t* selected, int count, const float* dropped, int64_t stride,
                const float* peak, T* output) {
  const int ps = s.page_size, pages = BLOCK / ps, D = s.head_size, G = s.num_queries_per_kv;
  const int tokens = count * ps, padded = (tokens + s.kernel_block_tokens - ps + LANES - 1) / LANES * LANES;
  const bool residual = s.selector == LOW_RANK;
  float* logits = Scratch::grow(scratch.logits, (size_t)G * padded);
  const size_t page_bytes = s.kernel_block_tokens * D * sizeof(T);
  auto keys_at = [&](int i) { return keys_of(s, cache, r.table, selected[i], head); };

  for (int i = 0; i < std::min(PAGES_AHEAD, count); i++) prefetch_all(keys_at(i), page_bytes);
  for (int i = 0; i < count; i++) {
    const T *keys = keys_at(i), *next = keys_at(std::min(i + PAGES_AHEAD, count - 1));
    float* out = logits + (int64_t)i * ps;
    in_turns(G, [&](int g, auto heads) {
      page_logits<T, heads>(s, keys, next, query + g * D, out + (int64_t)g * padded, padded);
    });
  }
  // The last page may be incomplete. Its tokens are at the end of the list, because pages ascend.
  const int valid = tokens - (r.pages * ps - r.tokens);

  float* score = Scratch::grow(scratch.score, padded);
  std::fill(score, score + padded, 0.0f);
  float denominator[MAX_QUERIES_PER_KV], factor[MAX_QUERIES_PER_KV], sink[MAX_QUERIES_PER_KV];
  for (int g = 0; g < G; g++) {
    float* l = logits + (int64_t)g * padded;
    soft_cap(s, l, padded);
    for (int t = valid; t < padded; t++) l[t] = -INFINITY;
    sink[g] = sink_of(s, head, g);
    vf top = splat(residual ? std::max(peak[g], sink[g]) : sink[g]);
    for (int t = 0; t < padded; t += LANES) top = vmax(top, load16(l + t));
    float m = hmax(top);
    vf sum = {};
    for (int t = 0; t < padded; t += LANES) {
      vf x = load16(l + t);
      vf p = select(x == -INFINITY, vf{}, exp2(x - m));
      store_as(l + t, p);
      sum += p;
    }
    sink[g] = s.sinks ? std::exp2(sink[g] - m) : 0.0f;
    denominator[g] = hsum(sum) + sink[g];
    float inverse = 1.0f / denominator[g];
    for (int t = 0; t < padded; t += LANES) store_as(score + t, load16(score + t) + load16(l + t) * inverse);
    factor[g] = residual && peak[g] > -INFINITY ? std::exp2(peak[g] - m) : 0.0f;
  }

  // Values: the tokens that weigh most. The incomplete page always counts, since no tile holds its mean yet.
  int32_t* tokens_read = Scratch::grow(scratch.tokens, padded + LANES);
  const int tail = r.tokens % ps;
  const int head_tokens = valid - tail;
  for (int t = head_tokens; t < padded; t++) score[t] = 0.0f;
  int read = top_k(score, head_tokens, value_tokens - tail, tokens_read);
  for (int t = 0; t < tail; t++) tokens_read[read++] = head_tokens + t;
  auto value = [&](int t) { return value_of(s, cache, r.table, selected[t / ps] * ps + t % ps, head); };
  for (int i = 0; i < std::min(VALUES_AHEAD, read); i++) prefetch_all(value(tokens_read[i]), D * sizeof(T));

  // Weights of the tokens read, packed; what is left goes to the mean values.
  const TileLayout at(s.selector, D, pages);
  const int blocks = (r.pages + pages - 1) / pages, means = blocks * at.means;
  const int stride_read = (read + 7) / 8 * 8;
  float* weight = Scratch::grow(scratch.weight, (size_t)G * stride_read);
  float* rest = Scratch::grow(scratch.residual, (size_t)G * means);
  for (int g = 0; g < G; g++) {
    float* l = logits + (int64_t)g * padded;
    float* w = weight + (int64_t)g * stride_read;
    for (int i = 0; i < read; i++) {
      w[i] = l[tokens_read[i]];
      l[tokens_read[i]] = 0.0f;
    }
    for (int i = read; i < stride_read; i++) w[i] = 0.0f;
    if (!residual) {
      denominator[g] = sink[g];
      for (int i = 0; i < read; i++) denominator[g] += w[i];
      continue;
    }
    float* e = rest + (int64_t)g * means;
    std::fill(e, e + means, 0.0f);
    for (int i = 0; i < count; i++) {
      const float* unread = l + (int64_t)i * ps;
      vf sum = {};
      for (int t = 0; t + LANES <= ps; t += LANES) sum += load16(unread + t);
      e[selected[i] / at.mean_pages] += ps < LANES ? std::accumulate(unread, unread + ps, 0.0f) : hsum(sum);
    }
    const float* d = dropped + g * stride;
    float estimated = 0;
    for (int m = 0; m < means; m++) {
      float sum = 0;
      for (int p = m * at.mean_pages; p < (m + 1) * at.mean_pages; p++) sum += d[p];
      e[m] += sum * factor[g];
      estimated += sum * factor[g];
    }
    denominator[g] += estimated;
  }

  float* out = Scratch::grow(scratch.out, (size_t)G * D);
  std::fill(out, out + (size_t)G * D, 0.0f);
  const T* values[8];
  for (int i = 0; i < read; i += 8) {
    for (int j = 0; j < 8; j++) values[j] = value(tokens_read[std::min(i + j, read - 1)]);
    for (int j = i + VALUES_AHEAD; j < std::min(i + VALUES_AHEAD + 8, read); j++)
      prefetch_all(value(tokens_read[j]), D * sizeof(T));
    for (int d = 0; d < D; d += LANES) {
      vf v[8];
      for (int j = 0; j < 8; j++) v[j] = load16(values[j] + d);
      for (int g = 0; g < G; g++) {
        const float* w = weight + (int64_t)g * stride_read + i;
        vf acc = load16(out + g * D + d);
        for (int j = 0; j < 8; j++) acc += v[j] * w[j];
        store_as(out + g * D + d, acc);
      }
    }
  }
  if (residual) add_mean_values(s, tiles, blocks, at, rest, out);
  for (int g = 0; g < G; g++) {
    float inverse = 1.0f / denominator[g];
    for (int d = 0; d < D; d++) store1(output + g * D + d, out[g * D + d] * inverse);
  }
}

}  // namespace

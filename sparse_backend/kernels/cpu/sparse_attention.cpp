// Sparse decode attention over vLLM's paged KV cache on CPU. Three operations, the same as in ../reference.py, which
// defines what they compute: update_summaries, select_pages, attend_pages. `decode` runs the last two back to back.
//
// Compiled at first use for the machine it runs on (-march=native): the 16-lane vector types below become AVX-512
// instructions, pairs of AVX-2 instructions, or plain scalar code.
//
// Cache of one layer, page = `page_size` consecutive tokens:
//   keys   [num_pages, kv_heads, head_size, page_size]   values follow each (page, head) as [page_size, head_size]
//   tiles  [num_blocks, kv_heads, tile_stride] bytes, a tile summarising the BLOCK tokens of one (block, head);
//          inside a tile everything is interleaved with the page fastest, so that lanes are pages.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include <omp.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

constexpr int BLOCK = 128;  // tokens a tile summarises
constexpr int LANES = 16;
// How far ahead pages and tiles are fetched into the L2 cache: they are scattered, so no hardware prefetcher finds the
// next, and one takes less time to read than memory takes to answer.
constexpr int PAGES_AHEAD = 4, TILES_AHEAD = 2;
constexpr int RANK = 2;     // directions of a low-rank page summary: one a nibble
constexpr int VECTOR = 64;  // bytes
constexpr int FINE = 254;   // steps of a query's fine code in one of its coarse code
constexpr float LOG2_E = 1.44269504f;

enum DType : int32_t { BF16 = 0, FP16 = 1, FP32 = 2 };
enum Selector : int32_t { EXACT = 0, BLOCK_MEAN = 1, QUEST = 2, LOW_RANK = 3 };

typedef float vf __attribute__((vector_size(64), aligned(4)));
typedef int32_t vi __attribute__((vector_size(64), aligned(4)));
typedef uint32_t vu __attribute__((vector_size(64), aligned(4)));
typedef uint16_t vu16 __attribute__((vector_size(32), aligned(2)));
typedef int8_t vi8 __attribute__((vector_size(16), aligned(1)));
typedef uint8_t vu8 __attribute__((vector_size(16), aligned(1)));
typedef uint8_t vbytes __attribute__((vector_size(64), aligned(1)));

#define INLINE static inline __attribute__((always_inline))

template <class V, class T>
INLINE V load_as(const T* p) { V v; std::memcpy(&v, p, sizeof(V)); return v; }
template <class V, class T>
INLINE void store_as(T* p, V v) { std::memcpy(p, &v, sizeof(V)); }

struct bf16 { uint16_t bits; };
#if defined(__FLT16_MAX__)
struct fp16 { _Float16 value; };
#endif

INLINE vf load16(const float* p) { return load_as<vf>(p); }
// GCC 12 widens 16 lanes in halves and puts them together again, if left to itself.
INLINE vu widen(vu16 x) {
#if defined(__AVX512F__)
  return (vu)_mm512_cvtepu16_epi32((__m256i)x);
#elif defined(__AVX2__)
  __m128i parts[2];
  std::memcpy(parts, &x, sizeof(parts));
  __m256i halves[2] = {_mm256_cvtepu16_epi32(parts[0]), _mm256_cvtepu16_epi32(parts[1])};
  return load_as<vu>(halves);
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
#else
  return __builtin_convertvector(load_as<vh>(p), vf);
#endif
}
INLINE void store1(fp16* p, float x) { p->value = (_Float16)x; }
INLINE float load1(const fp16* p) { return (float)p->value; }
#endif

INLINE void prefetch(const void* p) { __builtin_prefetch(p, 0, 2); }
INLINE vf splat(float x) { return x - vf{}; }
#if defined(__AVX512F__)
INLINE vf vmax(vf a, vf b) { return (vf)_mm512_max_ps((__m512)a, (__m512)b); }
INLINE vf vmin(vf a, vf b) { return (vf)_mm512_min_ps((__m512)a, (__m512)b); }
#else
INLINE vf vmax(vf a, vf b) { return a > b ? a : b; }
INLINE vf vmin(vf a, vf b) { return a < b ? a : b; }
#endif

// v[i + shift]
template <int SHIFT, class V>
INLINE V rotate(V v) {
  vi lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return __builtin_shuffle(v, (lane + SHIFT) & (LANES - 1));
}
// lanes i, i + PAGES, i + 2 PAGES ... summed, in every lane
template <int PAGES, class V>
INLINE V fold(V v) {
  if (PAGES <= 8) v += rotate<8>(v);
  if (PAGES <= 4) v += rotate<4>(v);
  if (PAGES <= 2) v += rotate<2>(v);
  if (PAGES <= 1) v += rotate<1>(v);
  return v;
}
INLINE float hsum(vf v) { return fold<1>(v)[0]; }
INLINE float hmax(vf v) {
  v = vmax(v, rotate<8>(v));
  v = vmax(v, rotate<4>(v));
  v = vmax(v, rotate<2>(v));
  return std::max(v[0], v[1]);
}

// Sixteen bytes as integers.
INLINE vi widen(vu8 x) {
#if defined(__AVX512F__)
  return (vi)_mm512_cvtepu8_epi32((__m128i)x);
#elif defined(__AVX2__)
  __m128i bytes = (__m128i)x;
  __m256i halves[2] = {_mm256_cvtepu8_epi32(bytes), _mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8))};
  return load_as<vi>(halves);
#else
  return __builtin_convertvector(x, vi);
#endif
}

// Every lane: sum + the dot product of its four unsigned bytes of `codes` with its four signed bytes of `query`.
INLINE vi dot4(vi sum, vbytes codes, vbytes query) {
#if defined(__AVX512VNNI__)
  return (vi)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)codes, (__m512i)query);
#elif defined(__AVX2__)
  __m256i c[2], q[2], total[2];
  std::memcpy(c, &codes, sizeof(c));
  std::memcpy(q, &query, sizeof(q));
  std::memcpy(total, &sum, sizeof(total));
  for (int i = 0; i < 2; i++) {
    __m256i even = _mm256_madd_epi16(_mm256_and_si256(c[i], _mm256_set1_epi16(255)),
                                     _mm256_srai_epi16(_mm256_slli_epi16(q[i], 8), 8));
    __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(c[i], 8), _mm256_srai_epi16(q[i], 8));
    total[i] = _mm256_add_epi32(total[i], _mm256_add_epi32(even, odd));
  }
  return load_as<vi>(total);
#else
  vu c = (vu)codes;
  vi q = (vi)query;
  sum += (vi)(c & 255) * (q << 24 >> 24) + (vi)(c >> 8 & 255) * (q << 16 >> 24);
  return sum + (vi)(c >> 16 & 255) * (q << 8 >> 24) + (vi)(c >> 24) * (q >> 24);
#endif
}

// 2^x within 2 ulp for |x| <= 126, clamped beyond. Logits are to the base 2 throughout, which saves a multiplication each.
INLINE vf exp2(vf x) {
  x = vmin(vmax(x, splat(-126.0f)), splat(126.0f));
  const float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer held in the low mantissa bits
  vf t = x + magic;
  vf r = x - (t - magic);
  vf p = r * 1.33908634e-3f + 9.67603192e-3f;
  p = p * r + 5.55035711e-2f;
  p = p * r + 2.40221075e-1f;
  p = p * r + 6.93147188e-1f;
  p = p * r + 1.0f;
  return (vf)((vi)p + ((vi)t << 23));
}

}  // namespace

// What holds for every layer of one step. The layout is mirrored by ctypes in ../native.py.
struct Step {
  int32_t dtype, selector;
  int32_t kv_heads, group, head_size, page_size;
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

// Element (d, page) of the codes of a tile: integer dot products sum four neighbouring bytes, so a page has four in turn.
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

// ---- selection of the k largest of n non-negative floats -------------------------------------------------------

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
    uint32_t equal = _mm512_cmpeq_epi32_mask(v, limit), take = _mm512_cmpgt_epi32_mask(v, limit);
    for (; equal && ties > 0; ties--, equal &= equal - 1) take |= equal & -equal;
    __m512i index = _mm512_add_epi32(_mm512_set1_epi32(i), (__m512i)vi{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15});
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

// ---- scoring ---------------------------------------------------------------------------------------------------

// What the query heads of one KV head are to the scoring of its tiles.
struct Query {
  const float* spread;  // [group][head_size * pages], page fastest: what a page-interleaved tile wants
  const int8_t* codes;  // [2][group][layout.codes], in fours: FINE * coarse + fine, times `scale`, is the query
  float scale[64];
  int32_t coarse_sum[64], sum[64];
};

Query prepare(const Step& s, const TileLayout& at, const float* query, int pages) {
  const int G = s.group, D = s.head_size;
  Query out;
  if (s.selector != LOW_RANK) {
    float* spread = Scratch::grow(scratch.expanded, (size_t)G * D * pages);
    for (int i = 0; i < G * D; i++)
      for (int p = 0; p < pages; p++) spread[(int64_t)i * pages + p] = query[i];
    out.spread = spread;
    return out;
  }
  int8_t* codes = Scratch::grow(scratch.codes, 2 * (size_t)G * at.codes);
  std::memset(codes, 0, 2 * (size_t)G * at.codes);
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
      int8_t coarse[4], fine[4];
      for (int j = 0; j < 4; j++) {
        const int code = (int)std::nearbyint(query[g * D + d + j] * inverse);
        coarse[j] = (int8_t)std::nearbyint(code / (float)FINE);
        fine[j] = (int8_t)(code - FINE * coarse[j]);
        out.coarse_sum[g] += coarse[j];
        out.sum[g] += code;
      }
      for (int p = 0; p < pages; p++) {
        std::memcpy(codes + g * at.codes + in_fours(d, p, pages), coarse, 4);
        std::memcpy(codes + (G + g) * at.codes + in_fours(d, p, pages), fine, 4);
      }
    }
  }
  out.codes = codes;
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
void score_low_rank(const Step& s, const TileLayout& at, const uint8_t* tile, const uint8_t* next, const Query& query, int first,
                    float* logit, float* mass, int64_t stride) {
  vi m[G] = {}, fine[G] = {}, b[RANK][G] = {};
  const uint8_t* codes = (const uint8_t*)query.codes + first * at.codes;
  for (int64_t i = 0; i < at.codes; i += VECTOR) {
    prefetch(next + i);
    prefetch(next + at.directions + i);
    vbytes mean = load_as<vbytes>(tile + i), both = load_as<vbytes>(tile + at.directions + i);
    vbytes low = both & 15, high = (vbytes)((vu)both >> 4) & 15;
    for (int g = 0; g < G; g++) {
      vbytes q = load_as<vbytes>(codes + g * at.codes + i);
      m[g] = dot4(m[g], mean, q);
      fine[g] = dot4(fine[g], mean, load_as<vbytes>(codes + (s.group + g) * at.codes + i));
      b[0][g] = dot4(b[0][g], low, q);
      b[1][g] = dot4(b[1][g], high, q);
    }
  }
  for (int64_t i = at.coefficients; i < at.end; i += VECTOR) prefetch(next + i);
  const vf mean_scale = per_page<PAGES>((const float*)(tile + at.mean_scale));
  vf mean[G], slope[RANK][G], offset[G], sum[G] = {};
  for (int g = 0; g < G; g++) {
    const float scale = query.scale[first + g] * LOG2_E;
    mean[g] = __builtin_convertvector(fold<PAGES>((vi)((vu)m[g] * FINE + (vu)fine[g])) - 128 * query.sum[first + g], vf) *
              (mean_scale * scale);
    offset[g] = vf{};
    for (int k = 0; k < RANK; k++) {
      const vf product_scale = per_page<PAGES>((const float*)(tile + at.product_scale) + k * PAGES);
      slope[k][g] = __builtin_convertvector(fold<PAGES>(b[k][g]) - 8 * query.coarse_sum[first + g], vf) *
                    (product_scale * (FINE * scale));
      offset[g] -= 8.0f * slope[k][g];
    }
  }
  for (int i = 0; i < BLOCK; i += LANES) {
    vi both = widen(load_as<vu8>(tile + at.coefficients + i));
    vf low = __builtin_convertvector(both & 15, vf), high = __builtin_convertvector(both >> 4, vf);
    for (int g = 0; g < G; g++) sum[g] += exp2(offset[g] + slope[0][g] * low + slope[1][g] * high);
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

// All query heads of one KV head, four at a time: as many accumulators as there are registers for.
template <int PAGES>
void score_heads(const Step& s, const TileLayout& at, const uint8_t* tile, const uint8_t* next, const Query& query,
                 float* logit, float* mass, int64_t stride) {
  int g = 0;
  for (; g + 4 <= s.group; g += 4) score_tile<4, PAGES>(s, at, tile, next, query, g, logit + g * stride, mass + g * stride, stride);
  switch (s.group - g) {
    case 3: score_tile<3, PAGES>(s, at, tile, next, query, g, logit + g * stride, mass + g * stride, stride); break;
    case 2: score_tile<2, PAGES>(s, at, tile, next, query, g, logit + g * stride, mass + g * stride, stride); break;
    case 1: score_tile<1, PAGES>(s, at, tile, next, query, g, logit + g * stride, mass + g * stride, stride); break;
  }
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

// Writes the logical numbers of the selected pages, ascending, and for every page dropped its estimated mass:
// dropped[g][page] * 2^(peak[g]) estimates the sum of 2^logit over the page's tokens (0 for a page kept).
// Returns the number of selected pages.
int select_row(const Step& s, const uint8_t* tiles, const float* query, const Row& r, int head, int key_tokens,
               int32_t* selected, float* dropped, int64_t stride, float* peak) {
  const int ps = s.page_size, pages = BLOCK / ps, D = s.head_size;
  for (int g = 0; g < s.group; g++) {
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
  float* logit = Scratch::grow(scratch.estimate, (size_t)s.group * stride);
  const int first = r.sink / pages, last = (r.local + pages - 1) / pages;
  auto tile_of = [&](int b) {
    return tiles + ((int64_t)(r.table[b * pages] / pages) * s.kv_heads + head) * s.tile_stride;
  };
  for (int b = first; b < last; b++) {
    const uint8_t *tile = tile_of(b), *next = tile_of(std::min(b + TILES_AHEAD, last - 1));
    float *l = logit + b * pages, *d = dropped + b * pages;
    switch (pages) {
      case 8: score_heads<8>(s, at, tile, next, prepared, l, d, stride); break;
      case 4: score_heads<4>(s, at, tile, next, prepared, l, d, stride); break;
      case 2: score_heads<2>(s, at, tile, next, prepared, l, d, stride); break;
    }
  }

  // Page score: the group's softmax over candidate pages, summed over the group; block_mean averages logits instead.
  const int padded = (r.candidates + LANES - 1) / LANES * LANES;
  float* score = Scratch::grow(scratch.score, padded);
  std::fill(score, score + padded, 0.0f);
  if (s.selector == BLOCK_MEAN) {
    float low = INFINITY;
    for (int i = 0; i < r.candidates; i++) {
      for (int g = 0; g < s.group; g++) score[i] += logit[g * stride + r.sink + i];
      low = std::min(low, score[i]);
    }
    for (int i = 0; i < r.candidates; i++) score[i] -= low;  // top_k wants non-negative numbers
  } else {
    for (int g = 0; g < s.group; g++) {
      float* l = logit + g * stride + r.sink;
      float* d = dropped + g * stride + r.sink;
      for (int i = r.candidates; i < padded; i++) {
        l[i] = -INFINITY;
        d[i] = 0.0f;
      }
      vf top = splat(-INFINITY), sum = {};
      for (int i = 0; i < padded; i += LANES) top = vmax(top, load16(l + i));
      peak[g] = hmax(top);
      for (int i = 0; i < padded; i += LANES) {
        vf w = load16(d + i) * exp2(load16(l + i) - peak[g]);
        store_as(d + i, w);
        sum += w;
      }
      const float inverse = 1.0f / hsum(sum);
      for (int i = 0; i < padded; i += LANES) store_as(score + i, load16(score + i) + load16(d + i) * inverse);
    }
  }

  int count = 0;
  for (int i = 0; i < r.sink; i++) selected[count++] = i;
  int taken = top_k(score, r.candidates, wanted, selected + count);
  for (int i = 0; i < taken; i++) selected[count + i] += r.sink;
  count += taken;
  for (int i = r.local; i < r.pages; i++) selected[count++] = i;
  for (int g = 0; g < s.group; g++) {
    float* d = dropped + g * stride;
    for (int i = 0; i < count; i++) d[selected[i]] = 0.0f;
    for (int i = 0; i < r.sink; i++) d[i] = 0.0f;  // pages of the first and last tile that are no candidates
    for (int i = r.local; i < (int)std::min<int64_t>(stride, (int64_t)last * pages); i++) d[i] = 0.0f;
  }
  return count;
}

// ---- attention -------------------------------------------------------------------------------------------------

template <class T, int G>
INLINE void page_logits(const T* keys, const T* next, const float* query, int head_size, int page_size, float* out,
                        int64_t stride) {
  for (int t = 0; t < page_size; t += LANES) {
    vf even[G] = {}, odd[G] = {};
    for (int d = 0; d < head_size; d += 2) {
      prefetch(next + (int64_t)d * page_size + t);
      vf k = load16(keys + (int64_t)d * page_size + t), l = load16(keys + (int64_t)(d + 1) * page_size + t);
      for (int g = 0; g < G; g++) {
        even[g] += k * query[g * head_size + d];
        odd[g] += l * query[g * head_size + d + 1];
      }
    }
    for (int g = 0; g < G; g++) store_as(out + g * stride + t, (even[g] + odd[g]) * LOG2_E);
  }
}

template <class T>
void attend_row(const Step& s, const T* cache, const uint8_t* tiles, const float* query, const Row& r, int head,
                int value_tokens, const int32_t* selected, int count, const float* dropped, int64_t stride,
                const float* peak, T* output) {
  const int ps = s.page_size, pages = BLOCK / ps, D = s.head_size, G = s.group;
  const int tokens = count * ps, padded = (tokens + LANES - 1) / LANES * LANES;
  const bool residual = s.selector == LOW_RANK;
  float* logits = Scratch::grow(scratch.logits, (size_t)G * padded);
  auto page = [&](int logical) { return cache + ((int64_t)r.table[logical] * s.kv_heads + head) * ps * 2 * D; };

  for (int i = 0; i < count; i++) {
    const T* keys = page(selected[i]);
    const T* next = page(selected[std::min(i + PAGES_AHEAD, count - 1)]);
    float* out = logits + (int64_t)i * ps;
    int g = 0;
    for (; g + 4 <= G; g += 4) page_logits<T, 4>(keys, next, query + g * D, D, ps, out + (int64_t)g * padded, padded);
    switch (G - g) {
      case 3: page_logits<T, 3>(keys, next, query + g * D, D, ps, out + (int64_t)g * padded, padded); break;
      case 2: page_logits<T, 2>(keys, next, query + g * D, D, ps, out + (int64_t)g * padded, padded); break;
      case 1: page_logits<T, 1>(keys, next, query + g * D, D, ps, out + (int64_t)g * padded, padded); break;
    }
  }
  // The last page may be incomplete. Its tokens are at the end of the list, because pages ascend.
  const int valid = tokens - (r.pages * ps - r.tokens);

  float* score = Scratch::grow(scratch.score, padded);
  std::fill(score, score + padded, 0.0f);
  float denominator[64], factor[64];
  for (int g = 0; g < G; g++) {
    float* l = logits + (int64_t)g * padded;
    for (int t = valid; t < padded; t++) l[t] = -INFINITY;
    vf top = splat(residual ? peak[g] : -INFINITY);
    for (int t = 0; t < padded; t += LANES) top = vmax(top, load16(l + t));
    float m = hmax(top);
    vf sum = {};
    for (int t = 0; t < padded; t += LANES) {
      vf x = load16(l + t);
      vf p = x == -INFINITY ? vf{} : exp2(x - m);
      store_as(l + t, p);
      sum += p;
    }
    denominator[g] = hsum(sum);
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

  // Weights of the tokens read, packed; what is left of each block goes to its mean value.
  const int blocks = (r.pages + pages - 1) / pages;
  const int stride_read = (read + 7) / 8 * 8;
  float* weight = Scratch::grow(scratch.weight, (size_t)G * stride_read);
  float* rest = Scratch::grow(scratch.residual, (size_t)G * blocks);
  for (int g = 0; g < G; g++) {
    float* l = logits + (int64_t)g * padded;
    float* w = weight + (int64_t)g * stride_read;
    for (int i = 0; i < read; i++) {
      w[i] = l[tokens_read[i]];
      l[tokens_read[i]] = 0.0f;
    }
    for (int i = read; i < stride_read; i++) w[i] = 0.0f;
    if (!residual) {
      denominator[g] = 0;
      for (int i = 0; i < read; i++) denominator[g] += w[i];
      continue;
    }
    float* e = rest + (int64_t)g * blocks;
    std::fill(e, e + blocks, 0.0f);
    for (int i = 0; i < count; i++) {
      vf sum = {};
      for (int t = 0; t < ps; t += LANES) sum += load16(l + (int64_t)i * ps + t);
      e[selected[i] / pages] += hsum(sum);
    }
    const float* d = dropped + g * stride;
    float estimated = 0;
    for (int b = 0; b < blocks; b++) {
      float sum = 0;
      for (int p = b * pages; p < std::min((b + 1) * pages, r.pages); p++) sum += d[p];
      e[b] += sum * factor[g];
      estimated += sum * factor[g];
    }
    denominator[g] += estimated;
  }

  float* out = Scratch::grow(scratch.out, (size_t)G * D);
  std::fill(out, out + (size_t)G * D, 0.0f);
  const T* rows[8];
  auto value = [&](int t) { return page(selected[t / ps]) + (int64_t)ps * D + (int64_t)(t % ps) * D; };
  for (int i = 0; i < read; i += 8) {
    for (int j = 0; j < 8; j++) rows[j] = value(tokens_read[std::min(i + j, read - 1)]);
    for (int j = 8; j < 16 && i + j < read; j++) {
      const char* next = (const char*)value(tokens_read[i + j]);
      for (size_t line = 0; line < D * sizeof(T); line += 64) prefetch(next + line);
    }
    for (int d = 0; d < D; d += LANES) {
      vf v[8];
      for (int j = 0; j < 8; j++) v[j] = load16(rows[j] + d);
      for (int g = 0; g < G; g++) {
        const float* w = weight + (int64_t)g * stride_read + i;
        vf acc = load16(out + g * D + d);
        for (int j = 0; j < 8; j++) acc += v[j] * w[j];
        store_as(out + g * D + d, acc);
      }
    }
  }
  if (residual) {
    const TileLayout at(s.selector, D, pages);
    for (int b = 0; b < blocks; b++) {
      bool any = false;
      for (int g = 0; g < G; g++) any |= rest[(int64_t)g * blocks + b] > 0;
      if (!any) continue;
      const bf16* mean = (const bf16*)(tiles + ((int64_t)(r.table[b * pages] / pages) * s.kv_heads + head) * s.tile_stride +
                                       at.value_mean);
      for (int d = 0; d < D; d += LANES) {
        vf v = load16(mean + d);
        for (int g = 0; g < G; g++)
          store_as(out + g * D + d, load16(out + g * D + d) + v * rest[(int64_t)g * blocks + b]);
      }
    }
  }
  for (int g = 0; g < G; g++) {
    float inverse = 1.0f / denominator[g];
    for (int d = 0; d < D; d++) store1(output + g * D + d, out[g * D + d] * inverse);
  }
}

template <class T>
void decode_rows(const Step& s, const T* query, const T* cache, const uint8_t* tiles, T* output) {
  const int tasks = s.num_rows * s.kv_heads;
#pragma omp parallel for schedule(dynamic, 1)
  for (int task = 0; task < tasks; task++) {
    const int i = task / s.kv_heads, head = task % s.kv_heads;
    const Row r = row_of(s, i);
    const float* q = load_query(s, query, i, head);
    const int64_t stride = (r.pages + LANES) / LANES * LANES + BLOCK / LANES;
    float* dropped = Scratch::grow(scratch.packed, s.group * stride);
    int32_t* selected = Scratch::grow(scratch.pages, r.pages + LANES);
    float peak[64];
    int count = select_row(s, tiles, q, r, head, s.key_tokens[i], selected, dropped, stride, peak);
    attend_row(s, cache, tiles, q, r, head, s.value_tokens[i], selected, count, dropped, stride, peak,
               output + s.token[i] * s.output_stride + (int64_t)head * s.group * s.head_size);
  }
}

// ---- summaries -------------------------------------------------------------------------------------------------

INLINE void put_nibble(uint8_t& byte, int k, int code) {
  byte = k == 0 ? (uint8_t)((byte & 0xf0) | code) : (uint8_t)((byte & 0x0f) | (code << 4));
}

INLINE int quantise(float x, float inverse, int limit) {
  int c = (int)std::nearbyint(x * inverse);
  return std::max(-limit, std::min(limit, c));
}

constexpr int POWER_ITERATIONS = 12;
constexpr float TINY = 1e-20f;

// The direction in which the columns of key[d][t] spread most (not normalised): power iteration on their Gram matrix.
// C: registers that hold a page's tokens.
template <int C>
void largest_spread(const float* key, int D, float* direction) {
  constexpr int PS = C * LANES;
  vf gram[PS][C] = {}, u[C];
  for (int d = 0; d < D; d++) {
    vf row[C];
    for (int c = 0; c < C; c++) row[c] = load16(key + d * PS + c * LANES);
    for (int i = 0; i < PS; i++)
      for (int c = 0; c < C; c++) gram[i][c] += key[d * PS + i] * row[c];
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
// What a step lost to rounding is left to the next one.
template <int C>
void summarise_low_rank(float* key, int D, int p, const TileLayout& at, uint8_t* tile) {
  constexpr int ps = C * LANES, pages = BLOCK / ps;
  float direction[1024], coefficient[BLOCK];
  float top = TINY;
  for (int d = 0; d < D; d++) {
    float sum = 0;
    for (int t = 0; t < ps; t++) sum += key[d * ps + t];
    direction[d] = sum / ps;
    top = std::max(top, std::fabs(direction[d]));
  }
  const float mean_scale = top / 127;
  ((float*)(tile + at.mean_scale))[p] = mean_scale;
  for (int d = 0; d < D; d++) {
    int code = quantise(direction[d], 127 * (1 / top), 127);
    tile[in_fours(d, p, pages)] = (uint8_t)(code + 128);
    for (int t = 0; t < ps; t++) key[d * ps + t] -= code * mean_scale;
  }
  for (int k = 0; k < RANK; k++) {
    largest_spread<C>(key, D, direction);
    top = TINY;
    for (int d = 0; d < D; d++) top = std::max(top, std::fabs(direction[d]));
    float length = TINY;
    for (int d = 0; d < D; d++) {
      direction[d] = (float)quantise(direction[d], 7 * (1 / top), 7);
      put_nibble(tile[at.directions + in_fours(d, p, pages)], k, (int)direction[d] + 8);
      length += direction[d] * direction[d];
    }
    std::memset(coefficient, 0, sizeof(float) * ps);
    for (int d = 0; d < D; d++)
      for (int t = 0; t < ps; t++) coefficient[t] += key[d * ps + t] * direction[d];
    top = TINY;
    for (int t = 0; t < ps; t++) {
      coefficient[t] /= length;
      top = std::max(top, std::fabs(coefficient[t]));
    }
    const float product_scale = top / 7;
    ((float*)(tile + at.product_scale))[k * pages + p] = product_scale;
    for (int t = 0; t < ps; t++) {
      int code = quantise(coefficient[t], 7 * (1 / top), 7);
      put_nibble(tile[at.coefficients + t * pages + p], k, code + 8);
      coefficient[t] = code * product_scale;
    }
    for (int d = 0; d < D; d++)
      for (int t = 0; t < ps; t++) key[d * ps + t] -= direction[d] * coefficient[t];
  }
}

template <class T>
void update_rows(const Step& s, const T* cache, uint8_t* tiles, const int32_t* rows, const int32_t* starts,
                 int num_rows) {
  const int ps = s.page_size, pages = BLOCK / ps, D = s.head_size;
  const TileLayout at(s.selector, D, pages);
  if (at.end == 0) return;
  // One task a (request, block, KV head) whose pages were completed; `offset` finds the request of a block.
  thread_local std::vector<int32_t> offset;
  offset.assign(num_rows + 1, 0);
  for (int i = 0; i < num_rows; i++) {
    int first = starts[i] / ps / pages, complete = s.seq_lens[rows[i]] / ps;
    int blocks = complete > starts[i] / ps ? (complete + pages - 1) / pages - first : 0;
    offset[i + 1] = offset[i] + blocks;
  }
  const int32_t* offsets = offset.data();
  const int tasks = offset[num_rows] * s.kv_heads;
  if (tasks == 0) return;
#pragma omp parallel for schedule(dynamic, 4)
  for (int task = 0; task < tasks; task++) {
    const int block_task = task / s.kv_heads, head = task % s.kv_heads;
    const int i = (int)(std::upper_bound(offsets, offsets + num_rows + 1, block_task) - offsets) - 1;
    const int block = starts[i] / ps / pages + block_task - offsets[i];
    const int32_t* table = s.block_table + (int64_t)rows[i] * s.table_stride;
    const int first = std::max(block * pages, starts[i] / ps);
    const int end = std::min((block + 1) * pages, s.seq_lens[rows[i]] / ps);
    uint8_t* tile = tiles + ((int64_t)(table[block * pages] / pages) * s.kv_heads + head) * s.tile_stride;
    float* key = Scratch::grow(scratch.logits, (size_t)D * ps);
    for (int page = first; page < end; page++) {
      const T* keys = cache + ((int64_t)table[page] * s.kv_heads + head) * ps * 2 * D;
      const int p = page % pages;
      for (int e = 0; e < D * ps; e += LANES) store_as(key + e, load16(keys + e));
      if (s.selector == LOW_RANK) {
        switch (ps) {
          case 16: summarise_low_rank<1>(key, D, p, at, tile); break;
          case 32: summarise_low_rank<2>(key, D, p, at, tile); break;
          case 64: summarise_low_rank<4>(key, D, p, at, tile); break;
        }
      } else {
        bf16* low = (bf16*)tile;
        bf16* high = low + (int64_t)D * pages;
        for (int d = 0; d < D; d++) {
          const float* k = key + d * ps;
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
    if (s.selector == LOW_RANK && end > first) {  // mean value over the block's complete pages
      float* sum = Scratch::grow(scratch.out, (size_t)D);
      std::fill(sum, sum + D, 0.0f);
      for (int page = block * pages; page < end; page++) {
        const T* values = cache + ((int64_t)table[page] * s.kv_heads + head) * ps * 2 * D + (int64_t)ps * D;
        for (int t = 0; t < ps; t++)
          for (int d = 0; d < D; d += LANES) store_as(sum + d, load16(sum + d) + load16(values + t * D + d));
      }
      const float inverse = 1.0f / ((end - block * pages) * ps);
      for (int d = 0; d < D; d++) store1((bf16*)(tile + at.value_mean) + d, sum[d] * inverse);
    }
  }
}

template <class T>
void select_rows(const Step& s, const T* query, const uint8_t* tiles, int32_t* page_table, int32_t* counts) {
  const int tasks = s.num_rows * s.kv_heads;
#pragma omp parallel for schedule(dynamic, 1)
  for (int task = 0; task < tasks; task++) {
    const int i = task / s.kv_heads, head = task % s.kv_heads;
    const Row r = row_of(s, i);
    const float* q = load_query(s, query, i, head);
    const int64_t stride = (r.pages + LANES) / LANES * LANES + BLOCK / LANES;
    float* dropped = Scratch::grow(scratch.packed, s.group * stride);
    int32_t* selected = Scratch::grow(scratch.pages, r.pages + LANES);
    float peak[64];
    counts[task] = select_row(s, tiles, q, r, head, s.key_tokens[i], selected, dropped, stride, peak);
    std::memcpy(page_table + (int64_t)task * s.max_pages, selected, sizeof(int32_t) * counts[task]);
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

int64_t sparse_tile_bytes(int32_t selector, int32_t head_size, int32_t page_size) {
  return TileLayout(selector, head_size, BLOCK / page_size).end;
}

// Summarises the pages that the tokens from starts[i] on completed, for batch rows rows[i].
int32_t sparse_update_summaries(const Step* s, const void* cache, uint8_t* tiles, const int32_t* rows,
                                const int32_t* starts, int32_t num_rows) {
  DISPATCH(update_rows<T>(*s, (const T*)cache, tiles, rows, starts, num_rows))
}

int32_t sparse_select_pages(const Step* s, const void* query, const uint8_t* tiles, int32_t* page_table,
                            int32_t* counts) {
  DISPATCH(select_rows<T>(*s, (const T*)query, tiles, page_table, counts))
}

int32_t sparse_decode(const Step* s, const void* query, const void* cache, const uint8_t* tiles, void* output) {
  DISPATCH(decode_rows<T>(*s, (const T*)query, (const T*)cache, tiles, (T*)output))
}

}  // extern "C"

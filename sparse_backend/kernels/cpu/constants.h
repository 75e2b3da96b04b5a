// What every part is built around. ../../constants.py and ../native.py say the same; they compare it when they load us.
#pragma once

#include <cstdint>
#include <cstring>

namespace {

constexpr int BLOCK = 128;  // tokens a tile summarises
constexpr int RANK = 3;     // directions of a low-rank page summary
constexpr int MEAN_TOKENS = 32;  // whose values one mean value stands for; a page, where pages are larger
constexpr int FINE = 254;   // steps of a query's fine code in one of its coarse code
constexpr int POWER_ITERATIONS = 12;
constexpr int VECTOR = 64;  // bytes of a vector register
constexpr int LANES = 16;   // floats of it
constexpr int MAX_QUERIES_PER_KV = 64, MAX_HEAD_SIZE = 512;  // buffers

enum DType : int32_t { BF16 = 0, FP16 = 1, FP32 = 2 };
enum Selector : int32_t { EXACT = 0, BLOCK_MEAN = 1, QUEST = 2, LOW_RANK = 3 };

}  // namespace

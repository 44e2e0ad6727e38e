// One attention problem as plain numbers and pointers: what the kernels read. Filled by ops.cpp from tensors; owns nothing.
#pragma once
#include <cstdint>

namespace ik {

// A tensor [B or 1, H or 1, rows or 1, ...] of T whose last axis is contiguous; broadcast axes have stride 0; p is null where it is absent.
template <typename T>
struct View {
  const T* p = nullptr;
  int64_t sb = 0, sh = 0, sr = 0;
  const T* at(int64_t b, int64_t h, int64_t r) const { return p + b * sb + h * sh + r * sr; }
  explicit operator bool() const { return p != nullptr; }
};

struct MaskData {
  bool causal = false;
  int64_t offset = 0;
  int64_t window = 0;          // 0: none
  View<int64_t> left, right, prefix;   // [B]
  View<int64_t> head_sinks, head_windows;  // [H] along sh
  View<int32_t> query_docs, key_docs;      // [B, N]
  View<int32_t> hide_rows, hide_keys;      // [B, N] bit words
  View<int32_t> hide_heads;                // [H] along sh
  View<uint8_t> keep;                      // [B, H, blocks of rows, blocks of keys]
  int64_t block_rows = 0, block_keys = 0;
  View<float> alibi;                       // [H] along sh
  View<float> bias;                        // [B, H, Nq, Nk], -inf where hidden
};

struct EditData {
  View<float> logit_scale;  // [B, H, Nq]
  View<float> key_bias;     // [B, H, Nk]
  View<uint8_t> set_of_key; // [B, H, Nk] which factor column
  View<float> factors;      // [B, H, Nq, C + 1]
  View<float> gate;         // [B, H, Nq]
};

struct Problem {
  int64_t B = 0, H = 0, Hkv = 0, G = 0, Nq = 0, Nk = 0, D = 0, Dv = 0;
  float scale = 1, softcap = 0;  // softcap 0: none
  View<float> q, k, v;           // [B, heads, N, D]
  View<uint16_t> q_half, k_half, v_half;  // the same as bits of bfloat16, in place of q, k, v: the forward sweep alone takes them
  View<float> sink_logits;       // [H] along sh
  MaskData mask;
  EditData edit;

  bool half() const { return static_cast<bool>(q_half); }

  // Whether a factor on the logits may be folded into q: nothing between q.k and that factor is additive or curved.
  bool folds() const { return softcap == 0 && !mask.alibi && !mask.bias; }
};

// Row statistics asked for; a null output is not computed.
struct CollectData {
  float *entropy = nullptr, *row_max = nullptr, *moments = nullptr, *prob_square = nullptr, *distance = nullptr;
  float *sets = nullptr, *rest_mass = nullptr, *rest_entropy = nullptr, *match = nullptr, *windows = nullptr, *offsets = nullptr;
  float* sink_mass = nullptr;
  View<float> indicators;  // [B, C, Nk padded] along (sb, sh): 1 in the set, else 0
  View<int32_t> others;    // [B, Nk padded]: -1 outside `rest`, else 0
  View<int32_t> match_rows, match_keys;  // [B, M, N] along (sb, sh); keys padded
  int64_t n_sets = 0, n_match = 0, n_windows = 0, n_offsets = 0;
  const int64_t *window_sizes = nullptr, *offset_values = nullptr;
  int64_t topk = 0;
  const int64_t* topk_slot = nullptr;  // [Nq]: place of the row in the results, or -1
  int64_t topk_rows = 0;
  int64_t* topk_index = nullptr;
  float* topk_prob = nullptr;
};

}  // namespace ik

// Work sharing: threads of torch's pool claim tasks one by one, so that costly (late causal) tasks given first balance themselves.
#pragma once
#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>

namespace ik {

// Runs body(task, scratch) for every task; each thread makes one `Scratch`. A task's result must depend on the task alone: then results do
// not depend on the number of threads.
template <typename Scratch, typename Body>
void share(int64_t tasks, const Body& body) {
  std::atomic<int64_t> next{0};
  const int64_t threads = std::min<int64_t>(at::get_num_threads(), tasks);
  at::parallel_for(0, threads, 1, [&](int64_t, int64_t) {
    Scratch scratch;
    for (int64_t t = next.fetch_add(1); t < tasks; t = next.fetch_add(1)) body(t, scratch);
  });
}

}  // namespace ik

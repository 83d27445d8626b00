// Runs the CUDA kernels on the host: one ucontext fiber per thread, blocks one after another. Built with ASan and
// UBSan it checks every bound and alignment without a GPU. Shared memory is filled with NaN bytes for every block and
// threads run in both orders, so that a missing __syncthreads shows. It does not see races within a warp.
#pragma once
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <vector>

#define __global__
#define __device__
#define __launch_bounds__(...)
#define EDGEKD_DEVICE inline
#define EDGEKD_SHARED(T, name, count) T* name = shim::shared<T>(__LINE__, count)
#define EDGEKD_DYNAMIC_SHARED(name) unsigned char* name = shim::dynamic_shared()

namespace shim {

struct Index {
  unsigned x = 1, y = 1, z = 1;
};

enum class State { running, at_barrier, at_shuffle, done };

struct Fiber {
  ucontext_t context;
  std::vector<char> stack;
  State state;
  uint64_t exchanged;
};

inline std::vector<Fiber> fibers;
inline ucontext_t scheduler;
inline unsigned current;
inline const std::function<void()>* kernel;
inline std::map<int, std::vector<char>> shared_memory;  // one block's, by line of declaration

template <typename T>
T* shared(int line, size_t count) {
  std::vector<char>& memory = shared_memory[line];
  if (memory.empty()) memory.assign(count * sizeof(T), static_cast<char>(0xff));
  return reinterpret_cast<T*>(memory.data());
}

inline size_t dynamic_bytes;                     // of shared memory that the launch asked for
inline std::vector<unsigned char> dynamic_memory;  // one block's, of exactly that many bytes

inline unsigned char* dynamic_shared() {
  if (dynamic_memory.empty()) dynamic_memory.assign(dynamic_bytes, 0xff);
  return dynamic_memory.data();
}

inline void wait(State state) {
  fibers[current].state = state;
  swapcontext(&fibers[current].context, &scheduler);
}

inline void run_fiber() {
  (*kernel)();
  wait(State::done);
}

[[noreturn]] inline void fail(const char* reason) {
  std::fprintf(stderr, "shim: %s\n", reason);
  std::abort();
}

inline bool all_in(size_t begin, size_t end, State state) {
  bool any = false;
  for (size_t i = begin; i < end; ++i) {
    if (fibers[i].state != state && fibers[i].state != State::done) return false;
    any |= fibers[i].state == state;
  }
  return any;
}

inline void release(size_t begin, size_t end) {
  for (size_t i = begin; i < end; ++i)
    if (fibers[i].state != State::done) fibers[i].state = State::running;
}

inline void start_fibers(unsigned threads) {
  fibers.resize(threads);
  for (Fiber& fiber : fibers) {
    fiber.stack.resize(64 * 1024);
    fiber.state = State::running;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.data();
    fiber.context.uc_stack.ss_size = fiber.stack.size();
    fiber.context.uc_link = &scheduler;
    makecontext(&fiber.context, run_fiber, 0);
  }
}

// Runs every thread to its next wait, then lets go whole warps at a shuffle or the whole block at a barrier.
inline void run_block(unsigned threads, bool reversed) {
  shared_memory.clear();
  dynamic_memory.clear();
  start_fibers(threads);
  while (!all_in(0, threads, State::done)) {
    bool released = false;
    for (unsigned k = 0; k < threads; ++k) {
      current = reversed ? threads - 1 - k : k;
      if (fibers[current].state == State::running) swapcontext(&scheduler, &fibers[current].context);
    }
    for (unsigned warp = 0; warp < threads; warp += 32)
      if (all_in(warp, warp + 32, State::at_shuffle)) release(warp, warp + 32), released = true;
    if (!released && all_in(0, threads, State::at_barrier)) release(0, threads), released = true;
    if (!released && !all_in(0, threads, State::done)) fail("threads wait for one another in different places");
  }
}

}  // namespace shim

// Conversions to the index of the thread that is running now.
struct ShimThreadIndex {
  struct X {
    operator unsigned() const { return shim::current; }
  } x;
};
inline ShimThreadIndex threadIdx;
inline shim::Index blockIdx, gridDim, blockDim;

inline void __syncthreads() { shim::wait(shim::State::at_barrier); }

template <typename T>
T __shfl_xor_sync(unsigned, T value, int lane_mask) {
  const unsigned me = shim::current;
  std::memcpy(&shim::fibers[me].exchanged, &value, sizeof value);
  shim::wait(shim::State::at_shuffle);
  T received;
  std::memcpy(&received, &shim::fibers.at(me ^ lane_mask).exchanged, sizeof received);
  shim::wait(shim::State::at_shuffle);
  return received;
}

namespace shim {

// What a launch is besides its arguments; `reversed` is the order in which a block's threads run.
struct Launch {
  Index grid;
  unsigned threads = 256;
  size_t shared_bytes = 0;
  bool reversed = false;
};

template <typename Kernel, typename... Arguments>
void launch(Kernel run, const Launch& how, Arguments... arguments) {
  const std::function<void()> body = [=] { run(arguments...); };
  kernel = &body;
  gridDim = how.grid;
  blockDim = {how.threads, 1, 1};
  dynamic_bytes = how.shared_bytes;
  for (unsigned z = 0; z < how.grid.z; ++z)
    for (unsigned y = 0; y < how.grid.y; ++y)
      for (unsigned x = 0; x < how.grid.x; ++x) {
        blockIdx = {x, y, z};
        run_block(how.threads, how.reversed);
      }
}

template <typename Kernel, typename... Arguments>
void launch(Kernel run, unsigned blocks, bool reversed, Arguments... arguments) {
  launch(run, Launch{{blocks, 1, 1}, 256, 0, reversed}, arguments...);
}

}  // namespace shim

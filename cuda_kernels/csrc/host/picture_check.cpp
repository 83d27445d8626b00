// Reads one case on stdin, runs a picture kernel through the shim and writes the result on stdout, all raw bytes:
//   in:  3 x int32: what (0 letterbox, 1 crops), windows, reversed (the order of the threads); the job; then the windows
//        (crops alone) and the picture
//   out: float32 planes, or uint8 crops
// Cases follow one another until the input ends.
#include <new>

#include "cuda_shim.h"

#include "../picture_kernels.cu"

namespace {

constexpr std::align_val_t kAlignment{16};

struct Case {
  int32_t what, n_windows, reversed;
  edgekd::Job job;
};

// Exactly count elements at a multiple of 16 bytes, so that ASan guards the first byte beyond.
template <typename T>
struct Buffer {
  T* data;
  size_t count;
  explicit Buffer(size_t n) : data(static_cast<T*>(operator new(n * sizeof(T), kAlignment))), count(n) {
    std::memset(static_cast<void*>(data), 0xff, n * sizeof(T));
  }
  ~Buffer() { operator delete(data, kAlignment); }
  void read() {
    if (std::fread(data, sizeof(T), count, stdin) != count) shim::fail("the input ends early");
  }
  void write() { std::fwrite(data, sizeof(T), count, stdout); }
};

void run(const Case& c) {
  const edgekd::Job& job = c.job;
  const size_t n = static_cast<size_t>(c.n_windows), out = static_cast<size_t>(job.out_width) * job.out_height * 3;
  Buffer<edgekd::Window> windows(n);
  windows.read();
  Buffer<unsigned char> picture(static_cast<size_t>(job.picture_width) * job.picture_height * 3);
  picture.read();
  const unsigned wide = job.tile_groups * edgekd::kPixels, rows = 128 / job.tile_groups;
  const shim::Index grid = {(job.out_width + wide - 1) / wide, (job.out_height + rows - 1) / rows,
                            c.what ? static_cast<unsigned>(n) : 1};
  const shim::Launch how = {grid, 128, static_cast<size_t>(job.staged_bytes), c.reversed != 0};
  if (c.what == 0) {
    Buffer<float> planes(out);
    shim::launch(edgekd_letterbox, how, picture.data, planes.data, job);
    planes.write();
  } else {
    Buffer<unsigned char> crops(out * n);
    shim::launch(edgekd_crops, how, picture.data, windows.data, crops.data, job);
    crops.write();
  }
}

}  // namespace

int main() {
  Case c;
  while (std::fread(&c, sizeof c, 1, stdin) == 1) {
    run(c);
    std::fflush(stdout);
  }
  return 0;
}

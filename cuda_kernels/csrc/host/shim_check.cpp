// Reads one case on stdin, runs the CUDA kernels through the shim and writes the result on stdout, all raw bytes:
//   in:  10 x int32: what (0 analysis, 1 synthesis, 2 loss, 3 gradient), dtype (0 f32, 1 f16, 2 bf16), cells per
//        thread, images, channels, height, width, replicate, weighted, reversed (the order of the threads);
//        3 x float32: low, high, grad_output; then x, or the four bands, or student, teacher and cell_weight
//   out: the four bands, x, the loss or the gradient
#include "cuda_shim.h"

#include "../haar_kernels.cu"

namespace {

struct Case {
  int32_t what, dtype, cells, images, channels, height, width, replicate, weighted, reversed;
  float low, high, grad_output;
};

// Exactly count elements, so that ASan guards the first byte beyond; filled with NaN bytes until it is read or written.
template <typename T>
struct Buffer {
  std::vector<T> elements;
  explicit Buffer(size_t count) : elements(count) {
    if (count) std::memset(static_cast<void*>(elements.data()), 0xff, count * sizeof(T));
  }
  T* data() { return elements.data(); }
  void read() {
    if (elements.empty()) return;
    if (std::fread(static_cast<void*>(data()), sizeof(T), elements.size(), stdin) != elements.size())
      shim::fail("the input ends early");
  }
  void write() { std::fwrite(static_cast<void*>(data()), sizeof(T), elements.size(), stdout); }
};

template <typename T>
struct Kernels {
  void (*analysis)(const T*, T*, T*, T*, T*, int, int, int, int);
  void (*synthesis)(const T*, const T*, const T*, const T*, T*, int, int, int, int);
  void (*loss)(const T*, const T*, const float*, float*, int, int, int, int, float, float);
  void (*gradient)(const float*, const T*, const T*, const float*, T*, int, int, int, int, float, float);
};

#define KERNELS(dtype, cells)                                                                             \
  {                                                                                                       \
    edgekd_analysis_##dtype##_##cells, edgekd_synthesis_##dtype##_##cells, edgekd_loss_##dtype##_##cells, \
        edgekd_gradient_##dtype##_##cells                                                                 \
  }

template <typename T>
void run_transform(const Case& c, const Kernels<T>& kernels, unsigned blocks, size_t pixels, size_t cells) {
  const int planes = c.images * c.channels;
  Buffer<T> x(pixels), approx(cells), horizontal(cells), vertical(cells), diagonal(cells);
  Buffer<T>* bands[] = {&approx, &horizontal, &vertical, &diagonal};
  if (c.what == 0) {
    x.read();
    shim::launch(kernels.analysis, blocks, c.reversed, x.data(), approx.data(), horizontal.data(), vertical.data(),
                 diagonal.data(), planes, c.height, c.width, c.replicate);
    for (Buffer<T>* band : bands) band->write();
  } else {
    for (Buffer<T>* band : bands) band->read();
    shim::launch(kernels.synthesis, blocks, c.reversed, approx.data(), horizontal.data(), vertical.data(),
                 diagonal.data(), x.data(), planes, c.height, c.width, c.replicate);
    x.write();
  }
}

template <typename T>
void run_loss(const Case& c, const Kernels<T>& kernels, unsigned blocks, size_t pixels, size_t cells) {
  const int planes = c.images * c.channels;
  Buffer<T> student(pixels), teacher(pixels), gradient(pixels);
  Buffer<float> weight(c.weighted ? cells / c.channels : 0), grad_output(1), partial_sums(blocks), out(1);
  student.read();
  teacher.read();
  weight.read();
  grad_output.data()[0] = c.grad_output;
  const float* cell_weight = c.weighted ? weight.data() : nullptr;
  if (c.what == 2) {
    const unsigned some = blocks > 2 ? blocks / 2 : 1;  // fewer blocks than cells: threads take several steps
    shim::launch(kernels.loss, some, c.reversed, student.data(), teacher.data(), cell_weight, partial_sums.data(),
                 planes, c.height, c.width, c.channels, c.low, c.high);
    shim::launch(edgekd_finish, 1, c.reversed, partial_sums.data(), static_cast<int>(some), out.data());
    out.write();
  } else {
    shim::launch(kernels.gradient, blocks, c.reversed, grad_output.data(), student.data(), teacher.data(),
                 cell_weight, gradient.data(), planes, c.height, c.width, c.channels, c.low, c.high);
    gradient.write();
  }
}

template <typename T>
void run(const Case& c, const Kernels<T>& kernels) {
  const size_t planes = static_cast<size_t>(c.images) * c.channels, pixels = planes * c.height * c.width;
  const size_t cells = planes * ((c.height + 1) / 2) * ((c.width + 1) / 2);
  const unsigned blocks = static_cast<unsigned>((cells / c.cells + 255) / 256);
  if (c.what < 2) run_transform(c, kernels, blocks, pixels, cells);
  else run_loss(c, kernels, blocks, pixels, cells);
}

}  // namespace

int main() {
  Case c;
  if (std::fread(&c, sizeof c, 1, stdin) != 1) shim::fail("the input has no header");
  const int variant = c.cells == 1 ? 0 : c.cells == 2 ? 1 : c.cells == 4 ? 2 : 3;
  const Kernels<float> f32[] = {KERNELS(f32, 1), KERNELS(f32, 2), KERNELS(f32, 4)};
  const Kernels<edgekd::Half> f16[] = {KERNELS(f16, 1), KERNELS(f16, 2), KERNELS(f16, 4), KERNELS(f16, 8)};
  const Kernels<edgekd::BFloat16> bf16[] = {KERNELS(bf16, 1), KERNELS(bf16, 2), KERNELS(bf16, 4), KERNELS(bf16, 8)};
  if (c.dtype == 0) run(c, f32[variant]);
  else if (c.dtype == 1) run(c, f16[variant]);
  else run(c, bf16[variant]);
  return 0;
}

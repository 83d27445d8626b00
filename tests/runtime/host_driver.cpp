// The CUDA driver calls of edgekd/runtime/picture_kernels.py on a CPU: the real kernels, through the host shim.
// A launch is queued in a stream of host_cudart.c and runs when that is waited for; memory that is not there by then, or
// never was, breaks the device as an illegal address does. Launches are counted.
#include <mutex>

#include "cuda_shim.h"
#include "picture_kernels.cu"

extern "C" {
struct stream;
int host_enqueue(stream* to, void (*function)(void*), void* argument);
int host_is_device(const void* address, size_t n_bytes);
int host_is_pinned(const void* address, size_t n_bytes);
void host_break();
}

namespace {

enum Result { success = 0, invalid_value = 1, not_found = 500 };

struct Work {
  const unsigned char* picture;
  const edgekd::Window* windows;  // none for a letterbox
  void* out;
  edgekd::Job job;
  shim::Launch how;
};

std::mutex one_at_a_time;  // the shim has one set of fibers
int n_launches;

bool is_there(const void* address, size_t n_bytes) {
  return host_is_device(address, n_bytes) || host_is_pinned(address, n_bytes);
}

void run(void* argument) {
  const Work& work = *static_cast<Work*>(argument);
  const edgekd::Job& job = work.job;
  const size_t n_out = static_cast<size_t>(job.out_width) * job.out_height * 3 * work.how.grid.z;
  const size_t n_in = static_cast<size_t>(job.picture_width) * job.picture_height * 3;
  if (!is_there(work.picture, n_in) || !host_is_device(work.out, n_out * (work.windows ? 1 : sizeof(float))) ||
      (work.windows && !is_there(work.windows, work.how.grid.z * sizeof(edgekd::Window)))) {
    host_break();
  } else {
    const std::lock_guard<std::mutex> lock(one_at_a_time);
    if (work.windows) {
      shim::launch(edgekd_crops, work.how, work.picture, work.windows, static_cast<unsigned char*>(work.out), job);
    } else {
      shim::launch(edgekd_letterbox, work.how, work.picture, static_cast<float*>(work.out), job);
    }
  }
  delete &work;
}

template <typename T>
T taken(void** arguments, int index) {
  T value;
  std::memcpy(&value, arguments[index], sizeof value);
  return value;
}

char letterbox, crops;  // their addresses are the functions

}  // namespace

extern "C" {

int cuModuleLoadData(void** module, const void* image) {
  return *module = &n_launches, std::memcmp(image, "cubin", 5) ? invalid_value : success;
}

int cuModuleGetFunction(void** function, void*, const char* name) {
  *function = !std::strcmp(name, "edgekd_letterbox") ? &letterbox : !std::strcmp(name, "edgekd_crops") ? &crops : nullptr;
  return *function ? success : not_found;
}

int cuLaunchKernel(void* function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned, unsigned,
                   unsigned shared_bytes, stream* to, void** arguments, void**) {
  const bool cuts = function == &crops;
  n_launches++;
  return host_enqueue(to, run, new Work{taken<const unsigned char*>(arguments, 0),
                                        cuts ? taken<const edgekd::Window*>(arguments, 1) : nullptr,
                                        taken<void*>(arguments, 1 + cuts), taken<edgekd::Job>(arguments, 2 + cuts),
                                        {{x, y, z}, threads, shared_bytes, false}});
}

int cuGetErrorString(int code, const char** words) {
  return *words = code == not_found ? "named symbol not found" : "invalid argument", success;
}

int host_picture_launches() { return n_launches; }
}

/*
 * What a backend module offers to libedgekd: a shared library with one entry, a table of C functions.
 *
 * Private to this package: library and modules are built and installed together, abi_version guards against a mix.
 * The module of backend NAME is the file libedgekd_NAME.so. An engine serves one thread at a time, clones run freely.
 */
#ifndef EDGEKD_BACKEND_H
#define EDGEKD_BACKEND_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define EDGEKD_BACKEND_ABI_VERSION 4
#define EDGEKD_TENSOR_MAX_DIMS 4
#define EDGEKD_BACKEND_ENTRY "edgekd_backend_entry"

/*
 * A dense tensor in C order: float32 in `data`, or, for an input alone, uint8 in `bytes` where that is not NULL.
 *
 * An output that `stays` is read by another engine of the thread alone. A module with memory of its own leaves `data`
 * NULL and names its address in `device`; the other engine is given that address in its input.
 */
typedef struct edgekd_tensor {
    const char *name;
    uint32_t n_dims;
    int64_t dims[EDGEKD_TENSOR_MAX_DIMS];
    float *data;
    const uint8_t *bytes;
    void *device;
    int32_t stays; /* set by the caller of an output */
} edgekd_tensor;

/* What a file holds; gone after the call. */
typedef struct edgekd_bytes {
    const char *data;
    size_t size;
} edgekd_bytes;

/* An engine is made from `files`, whose sha256 was compared; a backend opens no file of a bundle. */
typedef struct edgekd_engine_options {
    const char *path;      /* of the stage's first file, for sentences */
    const char *precision; /* fp32, bf16, fp16 or int8 */
    uint32_t n_threads;    /* 0: the backend's choice */
    const edgekd_bytes *files;
    size_t n_files; /* at least 1 */
    void *beside;   /* an engine of the same thread to share a stream and scratch memory with, or NULL */
} edgekd_engine_options;

/* Where a function leaves the sentence of its failure. */
typedef struct edgekd_backend_error {
    char text[1024];
} edgekd_backend_error;

/* Functions return an edgekd_status. */
typedef struct edgekd_backend {
    uint32_t abi_version;
    /* Write the GPU's compute capability such as "8.7", "" without a GPU; NULL where GPUs do not matter. */
    int32_t (*compute_capability)(char *text, size_t capacity, edgekd_backend_error *error);
    int32_t (*open)(const edgekd_engine_options *options, void **engine, edgekd_backend_error *error);
    int32_t (*clone)(void *engine, void *beside, void **copy, edgekd_backend_error *error);
    /* Read the inputs, fill dims and data of the outputs by their names; they belong to the engine until its next run. */
    int32_t (*infer)(void *engine, const edgekd_tensor *inputs, size_t n_inputs, edgekd_tensor *outputs,
                     size_t n_outputs, edgekd_backend_error *error);
    void (*close)(void *engine);
} edgekd_backend;

#if defined(__GNUC__)
__attribute__((visibility("default")))
#endif
const edgekd_backend *edgekd_backend_entry(void);

#ifdef __cplusplus
}
#endif

#endif /* EDGEKD_BACKEND_H */

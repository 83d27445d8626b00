/* The CUDA runtime calls of edgekd/runtime/cuda.py on a CPU, stricter than a GPU, to execute buffer, stream and graph logic.
 *
 * Work is queued and runs only when its stream is waited for, so a missing synchronisation is read as old data. "Device"
 * memory is filled with 0xA5 and kept apart from page-locked memory; a copy of the wrong kind, past the end of an allocation
 * or from ordinary memory fails, and so does a leak, through host_live_objects().
 *
 * As on a GPU, a thread that records may neither allocate nor wait, and work on memory that was freed breaks everything
 * that follows (error 700). Device memory is accounted to the byte, copies are counted, errors can be injected.
 *
 * host_enqueue() is what a kernel launch is on a GPU: TensorRT's stand-ins in the tests call it.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SUCCESS = 0, INVALID_VALUE = 1, MEMORY_ALLOCATION = 2, NO_DEVICE = 100, NOT_READY = 600, CAPTURE_INVALIDATED = 901,
       ILLEGAL_STATE = 401, ILLEGAL_ADDRESS = 700, CAPTURE_UNSUPPORTED = 900 };
enum { HOST_TO_DEVICE = 1, DEVICE_TO_HOST = 2, DEVICE_TO_DEVICE = 3 };
enum { MAX_OPERATIONS = 256, MAX_ALLOCATIONS = 1024 };

typedef void (*host_function)(void *argument);
struct stream;
typedef struct { double time_ms; int n_queued, n_done; struct stream *stream; } event_t;
typedef struct {
    enum { COPY, CALL, RECORD, WAIT } kind;
    void *to;
    const void *from;
    size_t n_bytes;
    host_function function;
    event_t *event;
    int n_records; /* of the event, that a WAIT waits for */
} operation_t;
typedef struct { operation_t operations[MAX_OPERATIONS]; int n; } graph_t;
typedef struct stream { graph_t queue; int n_run; graph_t *capture; int invalidated; } stream_t;

static struct { char *start; size_t n_bytes; int on_device; } allocations[MAX_ALLOCATIONS];
static _Atomic int n_objects, n_graph_launches; /* clones run in several threads, each with its own stream */
static _Atomic long long n_device_bytes, n_device_peak, copied_bytes[4];
static _Atomic int sticky, last_error, allocations_until_failure;
static _Thread_local int n_captures, broke_capture; /* recordings of this thread, and whether a call was forbidden */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int n_devices = 1, fail_capture, is_integrated;

/* What every call returns goes through here: a broken device stays broken, and the last error can be asked for. */
static int said(int code) {
    if (sticky) code = sticky;
    if (code) last_error = code;
    return code;
}

/* Whether a call that a recording forbids may go on. */
static int allowed(void) {
    if (!n_captures) return 1;
    broke_capture = 1;
    return 0;
}

static int find_locked(const void *address, size_t n_bytes, int on_device) {
    for (int i = 0; i < MAX_ALLOCATIONS; i++) {
        const char *start = allocations[i].start, *wanted = address;
        if (start && allocations[i].on_device == on_device && wanted >= start &&
            wanted + n_bytes <= start + allocations[i].n_bytes)
            return i;
    }
    return -1;
}

static int find(const void *address, size_t n_bytes, int on_device) {
    pthread_mutex_lock(&lock);
    int i = find_locked(address, n_bytes, on_device);
    pthread_mutex_unlock(&lock);
    return i;
}

static int allocate(void **address, size_t n_bytes, int on_device) {
    if (!allowed()) return said(CAPTURE_UNSUPPORTED);
    if (allocations_until_failure && --allocations_until_failure == 0) return said(MEMORY_ALLOCATION);
    char *memory = aligned_alloc(256, (n_bytes + 255) / 256 * 256);
    if (!memory) return said(MEMORY_ALLOCATION);
    memset(memory, 0xA5, n_bytes);
    int code = MEMORY_ALLOCATION;
    pthread_mutex_lock(&lock);
    for (int i = 0; code && i < MAX_ALLOCATIONS; i++) {
        if (allocations[i].start) continue;
        allocations[i].start = memory, allocations[i].n_bytes = n_bytes, allocations[i].on_device = on_device;
        *address = memory, code = SUCCESS;
    }
    if (!code && on_device) n_device_bytes += n_bytes;
    if (n_device_bytes > n_device_peak) n_device_peak = n_device_bytes;
    pthread_mutex_unlock(&lock);
    return said(code);
}

static int release(void *address, int on_device) {
    if (!address) return said(SUCCESS);
    if (!allowed()) return said(CAPTURE_UNSUPPORTED);
    pthread_mutex_lock(&lock);
    int i = find_locked(address, 0, on_device), known = i >= 0 && allocations[i].start == address;
    if (known) {
        if (on_device) n_device_bytes -= allocations[i].n_bytes;
        free(allocations[i].start);
        allocations[i].start = NULL;
    }
    pthread_mutex_unlock(&lock);
    return said(known ? SUCCESS : INVALID_VALUE);
}

static void *object(size_t n_bytes) {
    n_objects++;
    return calloc(1, n_bytes);
}

static int destroy(void *pointer) {
    if (!pointer) return INVALID_VALUE;
    n_objects--;
    free(pointer);
    return SUCCESS;
}

static int queue(stream_t *stream, operation_t operation) {
    if (!stream || sticky) return said(INVALID_VALUE);
    graph_t *target = stream->capture ? stream->capture : &stream->queue;
    if (target->n == MAX_OPERATIONS) return MEMORY_ALLOCATION;
    target->operations[target->n++] = operation;
    return SUCCESS;
}

static void run_until(const event_t *event, int n_records);

static void run(const operation_t *operation) {
    if (sticky) { /* nothing is computed any more, and nobody waits for ever */
        if (operation->kind == RECORD) operation->event->n_done++;
        return;
    }
    if (operation->kind == COPY) {
        const size_t n = operation->n_bytes;
        if ((find(operation->to, n, 0) < 0 && find(operation->to, n, 1) < 0) ||
            (find(operation->from, n, 0) < 0 && find(operation->from, n, 1) < 0)) {
            sticky = ILLEGAL_ADDRESS; /* freed since it was queued */
            return;
        }
        memcpy(operation->to, operation->from, n);
    }
    if (operation->kind == CALL) operation->function(operation->to);
    if (operation->kind == RECORD) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        operation->event->time_ms = now.tv_sec * 1e3 + now.tv_nsec * 1e-6;
        operation->event->n_done++;
    }
    /* Work that another stream has queued runs now: without the wait it would not have. */
    if (operation->kind == WAIT) run_until(operation->event, operation->n_records);
}

/* Run the next operation of a stream. */
static void step(stream_t *stream) {
    operation_t next = stream->queue.operations[stream->n_run++];
    if (stream->n_run == stream->queue.n) stream->n_run = stream->queue.n = 0;
    run(&next);
}

static void run_until(const event_t *event, int n_records) {
    while (event->n_done < n_records && event->stream->queue.n) step(event->stream);
}

const char *cudaGetErrorString(int code) {
    return code == NO_DEVICE ? "no CUDA-capable device is detected" : code == MEMORY_ALLOCATION ? "out of memory"
           : code == ILLEGAL_ADDRESS                             ? "an illegal memory access was encountered"
           : code == CAPTURE_UNSUPPORTED ? "operation not permitted when stream is capturing"
                                         : "error";
}
int cudaGetLastError(void) {
    int code = sticky ? sticky : last_error;
    last_error = 0;
    return code;
}

int cudaGetDeviceCount(int *count) { return *count = n_devices, n_devices ? SUCCESS : NO_DEVICE; }
int cudaDeviceGetAttribute(int *value, int attribute, int device) {
    if (!device && (attribute == 18 || attribute == 19)) return *value = is_integrated, SUCCESS;
    if (device || (attribute != 16 && attribute != 75 && attribute != 76)) return INVALID_VALUE;
    return *value = attribute == 76 ? 7 : 8, SUCCESS; /* an Orin Nano: 8.7 with 8 multiprocessors */
}

int cudaMalloc(void **address, size_t n_bytes) { return allocate(address, n_bytes, 1); }
int cudaFree(void *address) { return release(address, 1); }
int cudaMallocHost(void **address, size_t n_bytes) { return allocate(address, n_bytes, 0); }
int cudaFreeHost(void *address) { return release(address, 0); }
int cudaHostAlloc(void **address, size_t n_bytes, unsigned flags) {
    return flags == 2 ? allocate(address, n_bytes, 0) : INVALID_VALUE;
}
int cudaHostGetDevicePointer(void **device, void *host, unsigned flags) {
    if (flags || find(host, 1, 0) < 0) return said(INVALID_VALUE);
    return *device = host, SUCCESS;
}

int cudaMemcpyAsync(void *to, const void *from, size_t n_bytes, int kind, stream_t *stream) {
    if (kind < HOST_TO_DEVICE || kind > DEVICE_TO_DEVICE) return INVALID_VALUE;
    if (find(to, n_bytes, kind != DEVICE_TO_HOST) < 0 || find(from, n_bytes, kind != HOST_TO_DEVICE) < 0)
        return said(INVALID_VALUE);
    copied_bytes[kind] += n_bytes;
    return queue(stream, (operation_t){.kind = COPY, .to = to, .from = from, .n_bytes = n_bytes});
}

int cudaStreamCreateWithFlags(stream_t **stream, unsigned flags) {
    return *stream = object(sizeof(stream_t)), flags == 1 ? SUCCESS : INVALID_VALUE;
}
int cudaStreamDestroy(stream_t *stream) { return destroy(stream); }
int cudaStreamSynchronize(stream_t *stream) {
    if (!stream || !allowed()) return said(CAPTURE_UNSUPPORTED);
    while (stream->queue.n) step(stream);
    return said(SUCCESS);
}

int cudaEventCreate(event_t **event) { return *event = object(sizeof(event_t)), SUCCESS; }
int cudaEventDestroy(event_t *event) { return destroy(event); }
int cudaEventRecord(event_t *event, stream_t *stream) {
    event->n_queued++, event->stream = stream;
    return queue(stream, (operation_t){.kind = RECORD, .event = event});
}
int cudaStreamWaitEvent(stream_t *stream, event_t *event, unsigned flags) {
    if (flags) return INVALID_VALUE;
    return queue(stream, (operation_t){.kind = WAIT, .event = event, .n_records = event->n_queued});
}
int cudaEventSynchronize(event_t *event) {
    if (!allowed()) return said(CAPTURE_UNSUPPORTED);
    run_until(event, event->n_queued);
    return said(SUCCESS);
}
int cudaEventElapsedTime(float *milliseconds, const event_t *start, const event_t *end) {
    if (!start->n_done || start->n_done < start->n_queued || !end->n_done || end->n_done < end->n_queued) return NOT_READY;
    return *milliseconds = (float)(end->time_ms - start->time_ms), SUCCESS;
}

int cudaStreamBeginCapture(stream_t *stream, int mode) {
    if (!stream || stream->capture || mode != 1) return ILLEGAL_STATE;
    stream->capture = object(sizeof(graph_t));
    stream->invalidated = fail_capture;
    n_captures++;
    return SUCCESS;
}
int cudaStreamEndCapture(stream_t *stream, graph_t **graph) {
    if (!stream || !stream->capture) return ILLEGAL_STATE;
    graph_t *captured = stream->capture;
    stream->capture = NULL;
    n_captures--;
    if (stream->invalidated || broke_capture) {
        broke_capture = 0;
        return destroy(captured), *graph = NULL, said(CAPTURE_INVALIDATED);
    }
    return *graph = captured, SUCCESS;
}
int cudaGraphInstantiateWithFlags(graph_t **executable, const graph_t *graph, unsigned long long flags) {
    if (!graph || flags) return INVALID_VALUE;
    *executable = object(sizeof(graph_t));
    **executable = *graph;
    return SUCCESS;
}
int cudaGraphDestroy(graph_t *graph) { return destroy(graph); }
int cudaGraphExecDestroy(graph_t *graph) { return destroy(graph); }
int cudaGraphLaunch(const graph_t *graph, stream_t *stream) {
    int code = graph ? SUCCESS : INVALID_VALUE;
    for (int i = 0; code == SUCCESS && i < graph->n; i++) code = queue(stream, graph->operations[i]);
    n_graph_launches++;
    return code;
}

static _Atomic int enqueues_to_fail;
void host_fail_enqueues(int n) { enqueues_to_fail = n; }
int host_enqueue(stream_t *stream, host_function function, void *argument) {
    if (enqueues_to_fail > 0) {
        enqueues_to_fail--;
        return ILLEGAL_STATE;
    }
    return queue(stream, (operation_t){.kind = CALL, .function = function, .to = argument});
}
int host_is_capturing(const stream_t *stream) { return stream && stream->capture != NULL; }
int host_is_pinned(const void *address, size_t n_bytes) { return find(address, n_bytes, 0) >= 0; }
int host_is_device(const void *address, size_t n_bytes) { return find(address, n_bytes, 1) >= 0; }
void host_break(void) { sticky = ILLEGAL_ADDRESS; }
void host_fail_allocation(int nth) { allocations_until_failure = nth; }
long long host_device_bytes(void) { return n_device_bytes; }
long long host_device_peak(void) { return n_device_peak; }
long long host_copied_bytes(int kind) { return copied_bytes[kind]; }
void host_reset(void) {
    sticky = last_error = allocations_until_failure = fail_capture = n_captures = broke_capture = 0;
    n_device_peak = n_device_bytes;
    copied_bytes[1] = copied_bytes[2] = 0;
    n_devices = 1, is_integrated = 0;
}
int host_live_objects(void) {
    int n = n_objects;
    for (int i = 0; i < MAX_ALLOCATIONS; i++) n += allocations[i].start != NULL;
    return n;
}
int host_graph_launches(void) { return n_graph_launches; }
void host_set_integrated(int integrated) { is_integrated = integrated; }
void host_set_devices(int count) { n_devices = count; }
void host_fail_captures(int fail) { fail_capture = fail; }

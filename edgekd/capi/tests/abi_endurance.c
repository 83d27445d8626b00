/* Many calls in the same memory, many threads at once. */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <unistd.h>

#include "abi.h"

enum { N_THREADS = 4 };

static long resident_kib(void)
{
    long pages = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");

    if (file != NULL && fscanf(file, "%ld %ld", &pages, &resident) != 2)
        resident = 0;
    if (file != NULL)
        fclose(file);
    return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

static void run_many(edgekd_chain *chain, long n_calls)
{
    edgekd_image image = whole_image();
    edgekd_object objects[4];
    uint8_t mask[WIDTH * HEIGHT];
    size_t n;
    long call;

    for (call = 0; call < n_calls; call++) {
        image.width_px = (uint32_t)(WIDTH - call % 7);
        image.height_px = (uint32_t)(HEIGHT - call % 5);
        CHECK(edgekd_chain_run(chain, &image, NULL) == EDGEKD_OK);
        CHECK(edgekd_chain_get_objects(chain, objects, 4, &n) == EDGEKD_OK && n == 1);
        CHECK(edgekd_chain_get_mask(chain, 0, mask, sizeof mask, NULL) == EDGEKD_OK);
    }
}

static void test_memory_is_flat(long n_calls)
{
    edgekd_chain *chain = opened(), *copy = NULL;
    long before_kib, i;

    draw(5);
    run_many(chain, n_calls / 10);
    before_kib = resident_kib();
    run_many(chain, n_calls);
    for (i = 0; i < n_calls / 100; i++) {
        CHECK(edgekd_chain_clone(chain, &copy) == EDGEKD_OK);
        run_many(copy, 1);
        edgekd_chain_close(copy);
        edgekd_chain_close(opened());
    }
    printf("%ld calls, %ld clones and bundles: %ld KiB resident before, %ld after\n", n_calls, n_calls / 100, before_kib,
           resident_kib());
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    CHECK(resident_kib() - before_kib < 1024);
#endif
    edgekd_chain_close(chain);
}

static void *run_in_thread(void *chain)
{
    edgekd_image image = whole_image();

    run_many((edgekd_chain *)chain, 300);
    image.width_px = 0;
    CHECK(edgekd_chain_run((edgekd_chain *)chain, &image, NULL) == EDGEKD_ERROR_ARGUMENT && says("0x30 px"));
    edgekd_chain_close((edgekd_chain *)chain);
    return NULL;
}

/* Clones run at once; each thread keeps its own last error; the first chain may be closed before its clones. */
static void test_threads(void)
{
    edgekd_chain *chain = opened(), *clones[N_THREADS];
    pthread_t threads[N_THREADS];
    int i;

    draw(5);
    CHECK(edgekd_chain_run(chain, NULL, NULL) == EDGEKD_ERROR_ARGUMENT);
    for (i = 0; i < N_THREADS; i++)
        CHECK(edgekd_chain_clone(chain, &clones[i]) == EDGEKD_OK);
    edgekd_chain_close(chain);
    for (i = 0; i < N_THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, run_in_thread, clones[i]) == 0);
    for (i = 0; i < N_THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(says("image is NULL"));
}

void test_endurance(long n_calls)
{
    test_threads();
    test_memory_is_flat(n_calls);
}

/*
 * A backend module for the tests: no network, a result that follows from the input, so that a wrong byte shows.
 *
 * detector  one box, over the cell of the brightest red value in the input's middle row, class 1; none when dark
 * encoder   the mean of the input's green channel in every embedding
 * decoder   logits +1 in each box's cells and -1 elsewhere; predicted IoU = the embedding
 *
 * The text of the engine file says which of the three it is; "wrong" makes a detector that gives a wrong shape,
 * "broken" one that fails when it runs, "refused" one that cannot be opened.
 */
#include "backend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "edgekd.h"

enum { SIDE = 32, STRIDE = 8, GRID = SIDE / 4, CELLS = SIDE / STRIDE, N_ANCHORS = 21, REG_MAX = 4, N_CLASSES = 2 };
enum { N_EMBEDDINGS = 256 * (SIDE / 16) * (SIDE / 16), MAX_BOXES = 16 };

typedef struct fake_engine {
    char kind[16];
    float first[MAX_BOXES * GRID * GRID + 4 * REG_MAX * N_ANCHORS + N_EMBEDDINGS];
    float second[MAX_BOXES + N_CLASSES * N_ANCHORS];
} fake_engine;

static int32_t say(edgekd_backend_error *error, int32_t status, const char *text)
{
    snprintf(error->text, sizeof error->text, "%s", text);
    return status;
}

static int32_t open_engine(const edgekd_engine_options *options, void **engine, edgekd_backend_error *error)
{
    fake_engine *made = (fake_engine *)calloc(1, sizeof *made);
    char text[32] = "";
    int read;

    memcpy(text, options->files[0].data, options->files[0].size < 31 ? options->files[0].size : 31);
    read = made != NULL && sscanf(text, "%15s", made->kind) == 1;
    if (!read || strcmp(made->kind, "refused") == 0) {
        free(made);
        return say(error, EDGEKD_ERROR_BUNDLE, "the fake backend refuses this engine");
    }
    *engine = made;
    return EDGEKD_OK;
}

static int32_t clone_engine(void *engine, void *beside, void **copy, edgekd_backend_error *error)
{
    fake_engine *made = (fake_engine *)malloc(sizeof *made);

    (void)beside;
    if (made == NULL)
        return say(error, EDGEKD_ERROR_MEMORY, "no memory for a clone");
    memcpy(made, engine, sizeof *made);
    *copy = made;
    return EDGEKD_OK;
}

static void close_engine(void *engine)
{
    free(engine);
}

static void shape(edgekd_tensor *tensor, float *data, uint32_t n_dims, int64_t a, int64_t b, int64_t c)
{
    tensor->n_dims = n_dims;
    tensor->dims[0] = a;
    tensor->dims[1] = b;
    tensor->dims[2] = c;
    tensor->dims[3] = c;
    tensor->data = data;
}

static void detect(fake_engine *engine, const float *image, edgekd_tensor *outputs)
{
    const float *row = image + SIDE * (SIDE / 2);
    int x, i, brightest = 0;

    for (x = 1; x < SIDE; x++)
        if (row[x] > row[brightest])
            brightest = x;
    for (i = 0; i < N_CLASSES * N_ANCHORS; i++)
        engine->second[i] = -9;
    for (i = 0; i < 4 * REG_MAX * N_ANCHORS; i++)
        engine->first[i] = (float)(i / N_ANCHORS % REG_MAX == 1) * 50; /* every side one cell away */
    if (row[brightest] > 0.5f)
        engine->second[N_ANCHORS + CELLS * (CELLS / 2) + brightest / STRIDE] = 2;
    shape(&outputs[0], engine->first, 3, 1, 4 * REG_MAX, N_ANCHORS);
    shape(&outputs[1], engine->second, 3, 1, N_CLASSES, strcmp(engine->kind, "wrong") == 0 ? 7 : N_ANCHORS);
}

static void encode(fake_engine *engine, const float *image, edgekd_tensor *outputs)
{
    double sum = 0;
    int i;

    for (i = 0; i < SIDE * SIDE; i++)
        sum += image[SIDE * SIDE + i];
    for (i = 0; i < N_EMBEDDINGS; i++)
        engine->first[i] = (float)(sum / (SIDE * SIDE));
    shape(&outputs[0], engine->first, 4, 1, 256, SIDE / 16);
}

static void decode(fake_engine *engine, const edgekd_tensor *inputs, edgekd_tensor *outputs)
{
    int64_t n = inputs[1].dims[0], index;
    int x, y;

    for (index = 0; index < n; index++) {
        const float *box = inputs[1].data + 4 * index;
        float *grid = engine->first + index * GRID * GRID;
        for (y = 0; y < GRID; y++)
            for (x = 0; x < GRID; x++)
                grid[y * GRID + x] = x * 4 + 2 >= box[0] && x * 4 + 2 < box[2] && y * 4 + 2 >= box[1] && y * 4 + 2 < box[3]
                                         ? 1.0f
                                         : -1.0f;
        engine->second[index] = inputs[0].data[0];
    }
    shape(&outputs[0], engine->first, 3, n, GRID, GRID);
    shape(&outputs[1], engine->second, 1, n, 0, 0);
}

static int32_t infer(void *handle, const edgekd_tensor *inputs, size_t n_inputs, edgekd_tensor *outputs,
                     size_t n_outputs, edgekd_backend_error *error)
{
    fake_engine *engine = (fake_engine *)handle;

    if (strcmp(engine->kind, "broken") == 0)
        return say(error, EDGEKD_ERROR_BACKEND, "the fake backend fell over");
    if (strcmp(engine->kind, "encoder") == 0 && n_inputs == 1 && n_outputs == 1)
        encode(engine, inputs[0].data, outputs);
    else if (strcmp(engine->kind, "decoder") == 0 && n_inputs == 2 && n_outputs == 2 && inputs[1].dims[0] <= MAX_BOXES)
        decode(engine, inputs, outputs);
    else if (n_inputs == 1 && n_outputs == 2)
        detect(engine, inputs[0].data, outputs);
    else
        return say(error, EDGEKD_ERROR_INTERNAL, "the chain called the wrong network");
    return EDGEKD_OK;
}

const edgekd_backend *edgekd_backend_entry(void)
{
    static const edgekd_backend backend = {EDGEKD_BACKEND_ABI_VERSION, NULL, open_engine, clone_engine, infer,
                                           close_engine};
    return &backend;
}

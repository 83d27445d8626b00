/* The parts of the program test_abi: what they share, and one function for each theme. */
#ifndef EDGEKD_TEST_ABI_H
#define EDGEKD_TEST_ABI_H

#include <edgekd.h>
#include <string.h>

#include "check.h"

enum { WIDTH = 40, HEIGHT = 30 };

extern const char *bundle_path;
extern const char *backend_path;
extern uint8_t pixels[HEIGHT][WIDTH][3];

/* A view of `pixels`. */
edgekd_image whole_image(void);

/* Dark, with one bright red column. */
void draw(uint32_t bright_column);

int32_t open_bundle(const char *folder, edgekd_chain **chain);

/* The bundle, which opens. */
edgekd_chain *opened(void);

/* Does the last error hold these words? */
int says(const char *words);

/* abi_versions.c: numbers, layouts, programs of another age. */
void test_versions(void);

/* abi_results.c: what a run gives. */
void test_results(void);

/* abi_refusals.c: what is refused, and that the chain works on. */
void test_refusals(void);

/* abi_endurance.c: many calls, many threads. */
void test_endurance(long n_calls);

#endif

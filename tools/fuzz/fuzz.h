/*
 * A harness feeds one parser with bytes from nowhere.  With -Dfuzz=true it is built for libFuzzer; in every build its
 * corpus is replayed as a test (replay.c).  What must not happen is a sanitizer's report or a failed assert.
 */
#pragma once
#include "vmm/base/base.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

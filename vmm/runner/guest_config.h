/* What a run's guest has besides what the user asks of it, and by which of its process's descriptors. */
#pragma once
#include "vmm/runner/run.h"

enum guest_fd {
    FD_CONFIG = 3,
    FD_INITRD,
    FD_CONTROL,
    FD_STDIN,
    FD_STREAMS, /* TEST_OUT, TEST_ERR, TEST_LOG */
    FD_SERIAL = FD_STREAMS + TEST_STREAMS,
    FD_MACHINE, /* its control socket, for who profiles */
    FD_END,
};

/* Adds it to the spec's machine. */
int guest_config_complete(const struct test_spec *s, struct err *err) must_check;

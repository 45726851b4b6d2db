/* What the guest's first process says by its control port (firmware/abi/init.h); foreign bytes. */
#pragma once
#include "firmware/abi/init.h"
#include "vmm/base/base.h"

enum said_kind { SAID_READY, SAID_EXIT, SAID_SIGNAL, SAID_ERROR };

struct said {
    enum said_kind kind;
    uint32_t number;          /* exit code, signal or errno value */
    uint64_t out, err, log;   /* bytes of output before it */
    char text[INIT_LINE_MAX]; /* of an error: printable */
};

/* A line without its end.  -EINVAL: no such line is ever said. */
int said_parse(const char *line, struct said *ret) must_check;
/* Of an error alone, "E TEXT"; also what follows INIT_LOG_MARK in the kernel's log. */
int said_parse_error(const char *text, struct said *ret) must_check;

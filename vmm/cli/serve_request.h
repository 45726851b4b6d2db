/*
 * What a client of `bothy test --serve` asks for: a line of JSON.  Foreign bytes.
 *
 *     {"id": 1, "command": "create", "count": 2, "machine": {"cpus": 4, "append": ["nosmp"]}}
 *     {"id": 2, "command": "run", "vm": 1, "argv": ["uname", "-r"], "timeout": 10}
 *     {"id": 3, "command": "put", "vm": 1, "from": "/on/the/host", "to": "/in/the/guest"}
 */
#pragma once
#include "vmm/base/base.h"
#include "vmm/base/err.h"

enum serve_verb {
    SERVE_CREATE,
    SERVE_RUN,
    SERVE_PUT,
    SERVE_GET,
    SERVE_DIAGNOSE,
    SERVE_RESET,
    SERVE_DESTROY,
    SERVE_VERBS,
};

enum {
    SERVE_GUESTS_MAX = 64,      /* of all clients */
    SERVE_WORDS_MAX = 4096,     /* of a command */
    SERVE_SECONDS_MAX = 1000000 /* of a time-out */
};

struct serve_request {
    enum serve_verb verb; /* SERVE_VERBS: none */
    bool has_id;
    int64_t id; /* that the answer has to have */
    uint32_t vm, count, timeout;
    char *machine;   /* JSON as of `bothy run --config`; NULL: nothing */
    char *from, *to; /* paths */
    char **argv;     /* NULL-terminated */
};

/* Fills *ret, its id also when the rest is bad; serve_request_clear() in any case. */
int serve_request_parse(const char *line, size_t n, struct serve_request *ret, struct err *err) must_check;
void serve_request_clear(struct serve_request *q);
/* The word for it. */
const char *serve_verb_name(enum serve_verb verb);

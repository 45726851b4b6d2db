/*
 * Reads KTAP version 1 (the kernel's Documentation/dev-tools/ktap.rst) and TAP 13 and 14 (testanything.org) out of a
 * command's output or a kernel's log, as it comes.  What is neither is skipped over, or kept as what was said about the
 * next result.
 *
 * Lenient where producers differ: dashes, numbers, plans before or after their tests or not at all, subtests indented
 * by any number of blanks or, as kselftest's runner does, by "# ", several documents one after the other, a kernel's
 * time stamps in front.  Strict where a result could get lost: a plan that was not kept, a result that is out of turn,
 * a group without a result of its own and "Bail out!" are errors in the list.
 *
 * The bytes are a guest's: lines, depth, results and the memory for them are bounded.
 */
#pragma once
#include "vmm/report/result.h"
#include "vmm/report/text.h"

/* The one test, skipped, of a plan that says there are none. */
#define KTAP_NO_TESTS "(all)"

enum {
    KTAP_LINE_MAX = 4096, /* bytes; the rest of a longer line is lost */
    KTAP_DEPTH = 16,      /* groups in groups; what is deeper counts as said about what holds it */
    KTAP_TESTS = 1 << 16,
    KTAP_OUTPUT_MAX = 64 << 10, /* bytes kept about one failure */
    KTAP_MEMORY = 32 << 20,     /* for names and output of all */
};

/* A list of results that is being read: all that stand at one indentation, between a plan and its parent's result. */
struct ktap_group {
    unsigned indent;
    char *name;           /* by "# Subtest: NAME"; or NULL */
    char *next_name;      /* of the group that begins next inside this one */
    struct list tests;    /* its results */
    struct list orphans;  /* of a group inside that has ended: the next result here is their parent's */
    char *orphans_name;   /* that group's */
    struct text said;     /* since the last result */
    struct test *last;    /* borrowed; NULL: no result yet */
    char *trouble, *skip; /* the first breach of the format; why the plan was "1..0" */
    bool hashed;          /* indented by "# " */
    bool planned, versioned;
    bool after;                /* what is said belongs to the last result */
    uint64_t plan, count, due; /* results; `due`: the next number */
    uint64_t since_ns;
};

struct ktap {
    struct list *ret; /* borrowed */
    char line[KTAP_LINE_MAX];
    size_t len;
    struct ktap_group group[KTAP_DEPTH];
    unsigned depth; /* 0: outside any document */
    unsigned tests;
    size_t memory; /* that is left */
    bool full;     /* no more is kept */
    uint64_t now_ns;
};

/* Results, struct test, are added to the list `ret` (borrowed, until ktap_end). */
void ktap_init(struct ktap *k, struct list *ret);
/* `now_ns` is what durations are taken from where lines have no time stamp of a kernel. */
void ktap_feed(struct ktap *k, const void *data, size_t n, uint64_t now_ns);
/* Nothing more comes.  Required. */
void ktap_end(struct ktap *k);

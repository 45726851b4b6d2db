/*
 * One run of a command on a kernel: what `bothy test` does once, and a matrix of runs many times.  The machine is a
 * child process, so that whatever happens to it can be told; all that passes between the command and us goes through
 * the caller's loop, which may have many runs at once.
 *
 * All functions are for the lane given at the start, and call back in it.  Its loop belongs to the process's first
 * thread: the end of that is the end of the machines.
 */
#pragma once
#include "vmm/loop/loop.h"
#include "vmm/machine/config.h"

#define TEST_ROOT_TAG "bothy.root" /* of the virtio-fs that the guest has as its root */

enum test_stream { TEST_OUT, TEST_ERR, TEST_LOG }; /* the command's two, and the kernel's log */
enum { TEST_STREAMS = TEST_LOG + 1 };

enum test_phase { TEST_BOOTING, TEST_COMMAND, TEST_ENDING, TEST_OVER };

enum test_outcome {
    TEST_PASS,
    TEST_FAIL,    /* the command ended with a code that is not 0, or by a signal */
    TEST_TIMEOUT, /* one of the spec's limits */
    TEST_CRASH,   /* the guest ended before its command did */
    TEST_ERROR,   /* bothy, or what it was told, could not do it */
    TEST_STOPPED, /* test_run_stop() */
};
extern const char *const test_outcome_words[]; /* "pass", "fail", …; NULL-terminated */

enum test_root {
    TEST_ROOT_SHARED,    /* a directory, by virtio-fs */
    TEST_ROOT_IN_MEMORY, /* a directory, copied into the initramfs */
    TEST_ROOT_DISK,      /* an image */
};

/* All borrowed until the run is over.  The start changes it: devices and words are added to `config`, which is
 * resolved, and what the kernel cannot do is done otherwise. */
struct test_spec {
    const char *name;      /* in messages and reports */
    struct config *config; /* what the user asks of the machine; its kernel is the path of a file */
    char *const *command;  /* NULL-terminated, found by the guest's PATH; NULL: a shell */
    char *const *env;      /* its environment, NULL-terminated */
    /* A directory, or the image of a disk; the guest may write there, and all of that is thrown away. */
    const char *root;
    enum test_root root_kind;
    const char *modules; /* lib/modules/VERSION; NULL: the kernel has all it needs built in */
    const char *kconfig; /* what it was configured by, as a text; NULL: unknown */
    bool systemd;        /* the root's own is the guest's first process, and the command a unit */
    bool keep;           /* when the command fails or time is up, the guest goes on until test_run_stop() */
    bool profile;        /* r->profile tells how the machine started; the log says more than usual */
    bool serve;          /* test_run_command() says what runs, as often as it likes; `command` is empty */
    const char *cwd;     /* in the guest */
    const char *user;    /* NAME or UID[:GID], looked up in the root; NULL: root */
    const char *hostname;
    uint64_t boot_ns;    /* from the start to the command's; 0, as in the next two: no limit */
    uint64_t silence_ns; /* without a byte on any stream, from the command's start */
    uint64_t total_ns;
    bool tty; /* the command gets a terminal for all three streams, of this size */
    uint16_t cols, rows;
    bool stdin_open; /* test_run_input() will be called; else it finds an end of file */
    /* The kernel is what is run: it says all on the serial port, of which output() takes everything, and that it ends
     * the machine before the command starts is all right. */
    const char *bundle;  /* a directory for what is known when the guest dies or runs out of time; NULL: none */
    const char *fail_on; /* what of the kernel's log is a crash: see bothy run; NULL: a panic, if there is a bundle */
    bool core;           /* with the guest's memory */
    bool lean_core;      /* and that without pages that are free, or programs' own */
    bool packed_core;    /* compressed, as kdump has it */
    bool kernel_only;
};

struct test_result {
    enum test_outcome outcome;
    int code;      /* what `bothy test` ends with for this alone: vmm/base/exit_code.h, or the command's own */
    int signal;    /* that ended the command (code is 128 + it); 0: none */
    bool bundled;  /* what is known of the dead guest is in the spec's bundle */
    char why[512]; /* one line; empty when it passed */
    uint64_t boot_ns, command_ns, all_ns; /* how long it took to the command's start, from there to its end, and all */
    uint64_t byte_ns;                     /* and from there to its first byte of output; 0: there was none */
    uint64_t start_ns;                    /* when it began, on CLOCK_MONOTONIC */
    uint64_t bytes[TEST_STREAMS];
};

/* Embedded in its owner, which sets the functions. */
struct test_run {
    /*
     * Bytes of a stream: what is taken, from 0 to n.  What is left is offered again after test_run_continue(); until
     * then the guest waits when it writes more there.
     */
    size_t (*output)(struct test_run *r, enum test_stream s, const void *bytes, size_t n);
    void (*phase)(struct test_run *r, enum test_phase p); /* it has come so far; NULL: nobody cares */
    void (*input)(struct test_run *r);                    /* test_run_input() takes more; NULL: no input */
    void (*kept)(struct test_run *r);                     /* the guest, with r->result, as the spec wants it */
    /* Who serves waits for the next command: in r->result this one's code, signal and command_ns. */
    void (*ended)(struct test_run *r);
    /* r->result is complete, and nothing is called any more: here or later, test_run_fini(). */
    void (*done)(struct test_run *r);

    struct test_result result;
    char *profile;            /* as "bothy ctl --json SOCKET profile" when the command started; NULL: there is none */
    struct test_child *child; /* private */
};

/* On failure nothing is called, and there is nothing to finish. */
int test_run_start(struct test_run *r, struct test_spec *s, struct lane *lane, struct err *err) must_check;
/*
 * One more command for a guest that serves, from phase TEST_COMMAND on whenever none runs; the next `input` bytes of
 * test_run_input() are its standard input, and must come.  -EPIPE: the guest does not listen.
 */
int test_run_command(struct test_run *r, char *const *command, uint64_t input) must_check;
/* Ends it soon: done() follows, with TEST_STOPPED and `why` unless it was over already. */
void test_run_stop(struct test_run *r, const char *why);
/* The same because we cannot go on: TEST_ERROR. */
void test_run_fail(struct test_run *r, const char *why);
/* Ends it soon as one that crashed, with its bundle. */
void test_run_diagnose(struct test_run *r);
void test_run_continue(struct test_run *r, enum test_stream s);
/* Input for the command, which takes what is here returned; less than n: input() follows.  None before that was called
 * once.  No bytes at all are the end of it. */
size_t test_run_input(struct test_run *r, const void *bytes, size_t n);
void test_run_resize(struct test_run *r, uint16_t cols, uint16_t rows);
/* Its machine's process, for who wants to look at it; 0 when it is gone. */
pid_t test_run_pid(const struct test_run *r);
/* Ends the machine at once if need be. */
void test_run_fini(struct test_run *r);

/*
 * The world of a device under test: guest RAM, buses and loops as in a machine, but no CPU and no KVM.  What a device
 * sends out is recorded.  The test's thread runs the loops; recorders take calls from any thread.
 */
#pragma once
#include "devices/core/device.h"

enum { TEST_LINES = 24, TEST_MSIS = 64, TEST_DOORBELLS = 64, TEST_WIRES = 8 };

struct test_line {
    bool level;
    unsigned rises; /* from low to high */
};

struct test_env {
    struct device_env env; /* attach_virtio and pci are the test's to set */
    struct loop *io_loop;
    struct test_line lines[TEST_LINES];
    struct msi msis[TEST_MSIS]; /* the first ones */
    unsigned nmsis;             /* all */
    struct test_wire {
        int fd;
        struct msi msi;
    } wires[TEST_WIRES]; /* eventfds that mean messages */
    unsigned nwires;
    struct doorbell doorbells[TEST_DOORBELLS];
    unsigned ndoorbells;
    bool no_doorbells;            /* refuse them, as hosts without do */
    unsigned requests[REQ_COUNT]; /* how many of each */
    int code;                     /* of the last one */
    char why[256];                /* of the last pause */
    /* private */
    struct msi_sink sink;
    struct irq_or ors[TEST_LINES];
    pthread_mutex_t lock;
};

/* `ram` is guest RAM in bytes, as for gmem_create().  Failures end the process. */
void test_env_init(struct test_env *t, uint64_t ram);
void test_env_fini(struct test_env *t); /* devices are destroyed */

/* Says "WHAT: why" and ends the process. */
void test_env_ends(const char *what, const struct err *err) __attribute__((noreturn));

/* A device of that class, made, initialised on env.loop, reset and settled.  Failures end the process. */
struct device *test_env_device(struct test_env *t, const char *cls, const char *id, const char *options);

/* Options with which a class can be made in a test and does all that it can, in `buf`.  Disks need an image (its
 * descriptor). */
const char *test_env_options(const struct device_class *cls, int image, char *buf, size_t n);

/* As a guest's CPU does it; a write that meets a doorbell signals it and does not reach the bus. */
uint64_t test_env_read(struct test_env *t, struct bus *bus, uint64_t addr, unsigned size);
void test_env_write(struct test_env *t, struct bus *bus, uint64_t addr, uint64_t val, unsigned size);

/*
 * The first process of a guest that runs a test.  It comes with no library and needs nothing from the root file system:
 * boot.c makes the kernel usable and finds the ports, root.c the file systems, command.c runs what was ordered and
 * carries its streams, log.c the kernel's log.  With systemd.c the first process becomes the root's systemd, and
 * this program comes back as a unit of it, for what is left to do.
 */
#pragma once
#include "firmware/init/orders.h"
#include "firmware/init/sys.h"

/* A line for the host, cut where it gets too long. */
struct line {
    char text[INIT_LINE_MAX];
    size_t n;
};
void line_add(struct line *l, const char *text);
void line_number(struct line *l, uint64_t v);
/* Ends it, and sends it by the control port. */
void line_send(struct line *l);

/* The end of all: tells the host of `text` and `more` (may be NULL), what was tried, and the result. */
__attribute__((noreturn)) void fail(long result, const char *text, const char *more);
/* The host ends the machine. */
__attribute__((noreturn)) void wait_for_the_end(void);

extern int ports[INIT_PORTS]; /* -1: not found yet */

/* The compiler makes calls of these, too. */
void *memcpy(void *dst, const void *src, size_t n);
void *memset(void *dst, int c, size_t n);

size_t text_length(const char *s);
bool text_equal(const char *a, const char *b);
/* "a/b" into `ret`, or false where it does not fit. */
bool path_join(const char *a, size_t alen, const char *b, char *ret, size_t size);
/* Whole pages, all zeroes. */
void *pages(size_t n);

/* Mounts what the ports need, and loads the modules. */
void load_modules(const struct orders *o);
/* Finds the ports, and waits until the host listens at all of them. */
void open_ports(void);
/* Makes the ordered root this process's, with what tests expect below it. */
void enter_root(const struct orders *o);
/* The loopback interface, and the network that was ordered. */
void start_network(const struct orders *o);
/* Descriptors of this program and its orders, before the root that has them is left. */
struct unit_files {
    int program, orders;
};
void open_unit_files(struct unit_files *ret);
/* Becomes the root's systemd, with a unit that runs this program there. */
__attribute__((noreturn)) void become_systemd(const struct unit_files *f);
/* Where the log is read, non-blocking, or -1. */
int log_open(void);
/* Bytes that were sent. */
uint64_t log_sent(void);
/* Sends what there is of it; false when it has to wait for the host to take more. */
bool log_carry(int kmsg);
/* Runs the command, or those that come, and reports how each ended. */
void run_command(const struct orders *o);

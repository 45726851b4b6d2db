/* For tests of the formats that are read-only as disks: a folder, a disk to be on images, and images with it. */
#pragma once
#include "devices/block/driver.h"

enum { FMT_SIZE = (34 << 20) + 3 * 512, FMT_CHUNK = 64 << 10 };
extern uint8_t *fmt_disk; /* FMT_SIZE bytes; in the folder as src.raw */

/* Of a group of tests: makes the folder and goes there; removes it. */
int fmt_setup(void **s);
int fmt_teardown(void **s);

/* A command, quietly: its exit code. */
int fmt_run(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
#define fmt_run_ok(...)               \
    do {                              \
        if (fmt_run(__VA_ARGS__))     \
            fail_msg("" __VA_ARGS__); \
    } while (0)
void fmt_need_judge(void); /* skips the test where qemu-img is not there */

/* Bytes of a file. */
void fmt_put(const char *path, uint64_t off, const void *p, size_t n);
void fmt_get(const char *path, uint64_t off, void *p, size_t n);
uint64_t fmt_size_of(const char *path);
bool fmt_is_zero(const uint8_t *p, size_t n);

extern const struct blk_open_opts fmt_reading;
struct blk *fmt_open(const char *path, const struct blk_open_opts *o);
/* What it says itself that it is based on. */
void fmt_names_backing(const char *path, const char *want);
/* It is, by a message with `word` in it. */
void fmt_refused(const char *path, const struct blk_open_opts *o, const char *word);
/* `size` bytes: the disk, then zeroes; and its status says the same. */
void fmt_reads_as_the_disk(const char *path, uint64_t size);

struct fmt_made {                                 /* an image of ours */
    const char *driver, *options, *path, *format; /* format: qemu-img's word */
};
enum { FMT_MADE = 10 };
extern const struct fmt_made fmt_made[FMT_MADE]; /* all kinds */
/* A new one, fresh. */
struct blk *fmt_make(const struct fmt_made *m, uint64_t size);
/* From two threads, so in no order. */
void fmt_write_disk(struct blk *b);

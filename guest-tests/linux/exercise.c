/*
 * exercise FILE SEED COUNT: does so many things to a file at random (reads, writes, truncations, mappings, holes,
 * copies within it, reopenings) and after each compares it with a model in memory.  For Linux guests, static.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SIZE = 256 << 10, PART = 24 << 10 };

static uint8_t model[SIZE + PART], got[SIZE + PART];
static long size;
static int fd;
static const char *path;
static uint64_t state;

static uint64_t dice(uint64_t below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state % below;
}

static void ends(const char *what)
{
    fprintf(stderr, "exercise: %s: %s (size %ld)\n", what, strerror(errno), size);
    exit(1);
}

static void grow(long to)
{
    if (to > size)
        size = to;
}

static void do_write(void)
{
    long at = (long)dice(SIZE - PART), n = 1 + (long)dice(PART);

    for (long i = 0; i < n; i++)
        model[at + i] = (uint8_t)dice(256);
    if (pwrite(fd, model + at, (size_t)n, at) != n)
        ends("write");
    grow(at + n);
}

static void do_truncate(void)
{
    long to = (long)dice(SIZE);

    if (ftruncate(fd, to))
        ends("truncate");
    if (to < size)
        memset(model + to, 0, (size_t)(size - to));
    size = to;
}

static void do_map(void)
{
    long at = (long)dice((uint64_t)size + 1) & ~4095l, n = size - at < PART ? size - at : PART;
    uint8_t *p;

    if (n <= 0)
        return;
    p = mmap(NULL, (size_t)n, PROT_READ | PROT_WRITE, MAP_SHARED, fd, at);
    if (p == MAP_FAILED)
        ends("mmap");
    if (memcmp(p, model + at, (size_t)n))
        ends("a mapping shows something else");
    for (long i = (long)dice((uint64_t)n); i < n; i += 97)
        p[i] = model[at + i] = (uint8_t)dice(256);
    if (msync(p, (size_t)n, MS_SYNC) || munmap(p, (size_t)n))
        ends("msync");
}

static void do_punch(void)
{
    long at = (long)dice(SIZE - PART), n = 1 + (long)dice(PART);

    if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, n)) {
        if (errno == EOPNOTSUPP)
            return;
        ends("punch");
    }
    if (at < size)
        memset(model + at, 0, (size_t)(at + n < size ? n : size - at));
}

static void do_copy(void)
{
    long from = (long)dice(SIZE / 4), to = SIZE / 2 + (long)dice(SIZE / 4), n = 1 + (long)dice(PART);
    loff_t in = from, out = to;
    ssize_t done = copy_file_range(fd, &in, fd, &out, (size_t)n, 0);

    if (done < 0)
        ends("copy");
    memmove(model + to, model + from, (size_t)done);
    if (done)
        grow(to + done);
}

static void do_reopen(void)
{
    if ((dice(2) && fsync(fd)) || close(fd))
        ends("close");
    fd = open(path, O_RDWR);
    if (fd < 0)
        ends("open");
}

static void check(void)
{
    struct stat st;

    if (fstat(fd, &st) || st.st_size != size)
        ends("the size is another");
    if (pread(fd, got, sizeof(got), 0) != size || memcmp(got, model, (size_t)size))
        ends("the content is another");
}

int main(int argc, char **argv)
{
    static void (*const things[])(void) = {do_write, do_write, do_truncate, do_map, do_punch, do_copy, do_reopen};

    if (argc != 4)
        return 2;
    path = argv[1];
    state = 88172645463325252 + (uint64_t)atoi(argv[2]);
    fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (fd < 0)
        ends("open");
    for (int i = atoi(argv[3]); i > 0; i--) {
        things[dice(sizeof(things) / sizeof(things[0]))]();
        check();
    }
    return 0;
}

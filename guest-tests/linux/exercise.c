/*
 * exercise FILE SEED COUNT: does so many things to a file at random (reads, writes, appends, truncations, mappings,
 * holes, space, copies within it, looks for data and holes, reopenings) and compares what it finds with a model in
 * memory.  It ends at the first difference, with the seed and the last things done.  What the file system does not know
 * is told at the end.  For Linux guests, static.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guest-tests/linux/dice.h"

enum { SIZE = 256 << 10, PART = 24 << 10, BLOCK = 4096, NOTED = 24 };

static uint8_t model[SIZE + PART];
static _Alignas(BLOCK) uint8_t got[SIZE + PART];
static long size;
static int fd, appends, direct; /* the file: for all, O_APPEND, O_DIRECT (or -1) */
static bool unsynced;           /* something was written by a mapping */
static const char *path, *unknown = "";
static unsigned seed, count;
static struct {
    const char *what;
    long at, n, size;
} noted[NOTED];

static void note(const char *what, long at, long n)
{
    noted[count % NOTED].what = what;
    noted[count % NOTED].at = at;
    noted[count % NOTED].n = n;
    noted[count++ % NOTED].size = size;
}

static void ends(const char *what)
{
    fprintf(stderr, "exercise: seed %u, thing %u: %s: %s (size %ld); before that:\n", seed, count, what,
            strerror(errno), size);
    for (unsigned i = count > NOTED ? count - NOTED : 0; i < count; i++)
        fprintf(stderr, "  %s at %ld, %ld bytes; size %ld\n", noted[i % NOTED].what, noted[i % NOTED].at,
                noted[i % NOTED].n, noted[i % NOTED].size);
    exit(1);
}

static void grow(long to)
{
    if (to > size)
        size = to;
}

static void compare(const uint8_t *with, long at, long n)
{
    for (long i = 0; i < n; i++)
        if (with[i] != model[at + i]) {
            char what[100];

            errno = 0;
            snprintf(what, sizeof(what), "at %ld is %#x, not %#x", at + i, with[i], model[at + i]);
            ends(what);
        }
}

static void fill(long at, long n)
{
    for (long i = 0; i < n; i++)
        model[at + i] = (uint8_t)dice(256);
}

static void clear(long at, long n)
{
    if (at < size)
        memset(model + at, 0, (size_t)(at + n < size ? n : size - at));
}

static void do_write(void)
{
    long at = (long)dice(SIZE - PART), n = 1 + (long)dice(PART);

    note("write", at, n);
    fill(at, n);
    if (pwrite(fd, model + at, (size_t)n, at) != n)
        ends("write");
    grow(at + n);
}

static void do_append(void)
{
    long n = 1 + (long)dice(PART);

    if (size + n > SIZE)
        return;
    note("append", size, n);
    fill(size, n);
    if (write(appends, model + size, (size_t)n) != n)
        ends("append");
    size += n;
}

static void do_truncate(void)
{
    long to = (long)dice(SIZE);

    note("truncate", to, 0);
    if (dice(2) ? truncate(path, to) : ftruncate(fd, to))
        ends("truncate");
    clear(to, SIZE);
    size = to;
}

static void do_map(void)
{
    long at = (long)dice((uint64_t)size + 1) & ~(BLOCK - 1l), n = size - at < PART ? size - at : PART;
    uint8_t *p;

    if (n <= 0)
        return;
    note("map", at, n);
    p = mmap(NULL, (size_t)n, PROT_READ | PROT_WRITE, MAP_SHARED, fd, at);
    if (p == MAP_FAILED)
        ends("mmap");
    compare(p, at, n);
    for (long i = (long)dice((uint64_t)n); i < n; i += 97)
        p[i] = model[at + i] = (uint8_t)dice(256);
    unsynced = dice(2);
    if ((!unsynced && msync(p, (size_t)n, MS_SYNC)) || munmap(p, (size_t)n))
        ends("msync");
}

static void do_allocate(void)
{
    static const struct {
        const char *name;
        int mode;
    } kinds[] = {{"allocate", 0},
                 {"allocate beyond", FALLOC_FL_KEEP_SIZE},
                 {"punch", FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE},
                 {"zero", FALLOC_FL_ZERO_RANGE},
                 {"zero within", FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE}};
    unsigned kind = (unsigned)dice(sizeof(kinds) / sizeof(kinds[0]));
    long at = (long)dice(SIZE - PART), n = 1 + (long)dice(PART);

    note(kinds[kind].name, at, n);
    if (fallocate(fd, kinds[kind].mode, at, n)) {
        if (errno != EOPNOTSUPP)
            ends("fallocate");
        unknown = kinds[kind].name;
        return;
    }
    if (kinds[kind].mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
        clear(at, n);
    if (!(kinds[kind].mode & FALLOC_FL_KEEP_SIZE))
        grow(at + n);
}

static void do_copy(void)
{
    long from = (long)dice(SIZE / 4), to = SIZE / 2 + (long)dice(SIZE / 4), n = 1 + (long)dice(PART);
    loff_t in = from, out = to;
    ssize_t done;

    note("copy", from, n);
    done = copy_file_range(fd, &in, fd, &out, (size_t)n, 0);
    if (done < 0 || (!done && from < size))
        ends("copy");
    memmove(model + to, model + from, (size_t)done);
    if (done)
        grow(to + done);
}

/* What is said to be a hole is all zeroes. */
static void do_seek(void)
{
    long at = (long)dice(SIZE), data, hole;

    note("seek", at, 0);
    if (unsynced && fdatasync(fd))
        ends("fdatasync");
    unsynced = false;
    data = lseek(fd, at, SEEK_DATA);
    if (data < 0 && errno != ENXIO)
        ends("SEEK_DATA");
    if (at < size && data < 0)
        data = size;
    for (long i = at; i < data; i++)
        if (model[i])
            ends("there is data before SEEK_DATA");
    hole = lseek(fd, at, SEEK_HOLE);
    if (at < size ? hole < at || hole > size : hole >= 0 || errno != ENXIO)
        ends("SEEK_HOLE");
}

static void do_direct(void)
{
    long at = (long)dice((SIZE - PART) / BLOCK) * BLOCK, n = (1 + (long)dice(4)) * BLOCK, have;

    if (direct < 0)
        return;
    if (dice(2)) {
        note("write directly", at, n);
        fill(at, n);
        memcpy(got, model + at, (size_t)n);
        if (pwrite(direct, got, (size_t)n, at) != n)
            ends("write directly");
        grow(at + n);
        return;
    }
    note("read directly", at, n);
    have = size < at ? 0 : size - at < n ? size - at : n;
    if (pread(direct, got, (size_t)n, at) != have)
        ends("read directly");
    compare(got, at, have);
}

static void open_all(void)
{
    fd = open(path, O_RDWR);
    direct = open(path, O_RDWR | O_DIRECT);
    appends = open(path, O_WRONLY | O_APPEND); /* the last one: the kernel may use it for what mappings wrote */
    if (fd < 0 || appends < 0)
        ends("open");
    if (direct < 0)
        unknown = "O_DIRECT";
}

static void do_reopen(void)
{
    note("reopen", 0, 0);
    if (dice(2) && (dice(2) ? fsync(fd) : fdatasync(fd)))
        ends("fsync");
    if (close(fd) || close(appends) || (direct >= 0 && close(direct)))
        ends("close");
    open_all();
}

static void do_forget(void)
{
    note("forget", 0, 0);
    if (fsync(fd) || posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED))
        ends("fadvise");
    unsynced = false;
}

static void check(long at, long n)
{
    long have = size < at ? 0 : size - at < n ? size - at : n;
    struct stat st;

    if (fstat(fd, &st) || st.st_size != size)
        ends("the size is another");
    if (pread(fd, got, (size_t)n, at) != have)
        ends("read");
    compare(got, at, have);
}

int main(int argc, char **argv)
{
    static void (*const things[])(void) = {do_write, do_write,  do_append, do_truncate, do_map,    do_map,
                                           do_copy,  do_direct, do_seek,   do_allocate, do_reopen, do_forget};

    if (argc != 4)
        return 2;
    path = argv[1];
    seed = (unsigned)atoi(argv[2]);
    dice_seed(seed);
    fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || close(fd))
        ends("open");
    open_all();
    for (int i = atoi(argv[3]); i > 0; i--) {
        things[dice(sizeof(things) / sizeof(things[0]))]();
        if (i % 16 == 1)
            check(0, sizeof(got));
        else
            check((long)dice(SIZE), 1 + (long)dice(PART));
    }
    if (*unknown)
        printf("exercise: %s is not known here\n", unknown);
    return 0;
}

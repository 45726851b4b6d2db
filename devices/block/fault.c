/*
 * A filter that fails on purpose: the Nth request of a kind, or those to a place, as often as wanted.  It is for tests
 * of what stands above, image formats here and file systems in guests, so it is exact before it is fast: every request
 * passes a worker.
 */
#include <errno.h>
#include <signal.h>
#include <unistd.h>

#include "devices/block/filter.h"
#include "vmm/base/cleanup.h"

enum op_word { OP_ANY, OP_CHANGE, OP_READ, OP_WRITE, OP_FLUSH, OP_DISCARD, OP_ZERO };
static const char *const op_words[] = {
    [OP_ANY] = "any",     [OP_CHANGE] = "change",   [OP_READ] = "read", [OP_WRITE] = "write",
    [OP_FLUSH] = "flush", [OP_DISCARD] = "discard", [OP_ZERO] = "zero", NULL,
};
enum act { ACT_EIO, ACT_ENOSPC, ACT_DELAY, ACT_KILL };
static const char *const act_words[] = {
    [ACT_EIO] = "eio", [ACT_ENOSPC] = "enospc", [ACT_DELAY] = "delay", [ACT_KILL] = "kill", NULL};

enum { DELAY_MAX_MS = 60000 };

struct fault {
    struct blk b;
    uint32_t op, act, delay_ms;
    uint64_t at, times, off, len, part;
    pthread_mutex_t lock; /* of the two below */
    struct fault_hook *hook;
    uint64_t seen;
};

static const struct opt fault_opts[] = {
    O_ENUM(struct fault, op, "op", "any", op_words, "requests to count; change: write, discard and zero"),
    O_SIZE(struct fault, off, "off", "0", 0, 0, "count only requests that touch bytes from here on"),
    O_SIZE(struct fault, len, "len", "0", 0, 0, "how many bytes that are; 0: to the end"),
    O_U64(struct fault, at, "at", "1", 1, 0, "the first of these that fails, by its number"),
    O_U64(struct fault, times, "times", "1", 0, 0, "how many fail in a row; 0: all from there on"),
    O_ENUM(struct fault, act, "do", "eio", act_words,
           "what becomes of them; kill ends this process, as a power cut does"),
    O_SIZE(struct fault, part, "part", "0", 0, 0, "bytes of a failing write that reach the disk: a torn write"),
    O_U32(struct fault, delay_ms, "ms", "100", 0, DELAY_MAX_MS, "how long delay takes"),
    O_END,
};

static struct fault *fault_of(struct blk *b)
{
    return container_of(b, struct fault, b);
}

static bool selects(const struct fault *f, const struct blk_io *io)
{
    static const enum op_word words[] = {[BLK_READ] = OP_READ,
                                         [BLK_WRITE] = OP_WRITE,
                                         [BLK_FLUSH] = OP_FLUSH,
                                         [BLK_DISCARD] = OP_DISCARD,
                                         [BLK_ZERO] = OP_ZERO};
    bool change = io->op != BLK_READ && io->op != BLK_FLUSH;

    if (f->op != OP_ANY && f->op != words[io->op] && !(f->op == OP_CHANGE && change))
        return false;
    if (!f->off && !f->len)
        return true;
    return io->op != BLK_FLUSH && io->off + io->len > f->off && (!f->len || io->off < f->off + f->len);
}

/* Counts the request; is it to fail? */
static bool due(struct fault *f, const struct blk_io *io, int *hooked)
{
    bool ret;

    pthread_mutex_lock(&f->lock);
    f->seen++;
    ret = !f->hook && f->seen >= f->at && (!f->times || f->seen - f->at < f->times);
    *hooked = f->hook ? f->hook->call(f->hook, io) : 0;
    pthread_mutex_unlock(&f->lock);
    return ret;
}

static int fail(struct fault *f, const struct blk_io *io)
{
    uint64_t part = io->op == BLK_WRITE ? min_u64(f->part, io->len) : 0;
    int rc = 0;

    if (f->act == ACT_DELAY) {
        usleep(f->delay_ms * 1000);
        return blk_rw(f->b.file, io);
    }
    if (part)
        rc = blk_rw_part(f->b.file, io, 0, part, io->off);
    if (f->act == ACT_KILL)
        kill(getpid(), SIGKILL);
    return rc ? rc : f->act == ACT_ENOSPC ? -ENOSPC : -EIO;
}

static int fault_rw(struct blk *b, const struct blk_io *io)
{
    struct fault *f = fault_of(b);
    int rc = 0;

    if (selects(f, io) && due(f, io, &rc))
        return fail(f, io);
    return rc ? rc : blk_rw(b->file, io);
}

void fault_set_hook(struct blk *b, struct fault_hook *h)
{
    fault_of(b)->hook = h;
}

uint64_t fault_seen(struct blk *b)
{
    struct fault *f = fault_of(b);
    uint64_t ret;

    pthread_mutex_lock(&f->lock);
    ret = f->seen;
    pthread_mutex_unlock(&f->lock);
    return ret;
}

static int fault_open(struct blk *b, const struct blk_open_opts *o, struct err *err)
{
    (void)o;
    (void)err;
    pthread_mutex_init(&fault_of(b)->lock, NULL);
    return 0;
}

const struct blk_driver fault_driver = {
    .name = "fault",
    .summary = "fails chosen requests",
    .size = sizeof(struct fault),
    .opts = fault_opts,
    .open = fault_open,
    .rw = fault_rw,
    .resize = filter_resize,
};

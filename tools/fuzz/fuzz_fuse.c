/*
 * A guest that does what it likes to a shared directory: requests with any opcode, for nodes and handles that it was
 * given or made up, with arguments from the input and names from a list or from the input.  The first byte chooses the
 * share's mode.  Replies are checked by the rig; what lies beside the directory stays as it is.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "devices/fs/fs_rig.h"
#include "tools/fuzz/fuzz.h"
#include "vmm/base/cleanup.h"

enum { STEPS = 64, KNOWN = 16, ARGS = 96, TAIL = 300 };

struct input {
    const uint8_t *data;
    size_t left;
};

static uint8_t take(struct input *in)
{
    if (!in->left)
        return 0;
    in->left--;
    return *in->data++;
}

static void take_bytes(struct input *in, uint8_t *to, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] = take(in);
}

static struct fs_rig g;
static uint64_t nodes[KNOWN], handles[KNOWN]; /* what replies gave */
static unsigned nnodes, nhandles;

static void learn(uint32_t opcode)
{
    const struct fuse_entry_out *e = (const struct fuse_entry_out *)g.reply;
    const struct fuse_open_out *o = (const struct fuse_open_out *)g.reply;

    if (g.len == sizeof(*e) || g.len == sizeof(*e) + sizeof(*o))
        nodes[nnodes++ % KNOWN] = e->nodeid;
    if (g.len == sizeof(*e) + sizeof(*o))
        handles[nhandles++ % KNOWN] = ((const struct fuse_open_out *)(e + 1))->fh;
    if (opcode == FUSE_OPEN || opcode == FUSE_OPENDIR)
        handles[nhandles++ % KNOWN] = o->fh;
}

static uint64_t take_node(struct input *in)
{
    uint8_t b = take(in);

    return b < 64 ? FUSE_ROOT_ID : b < 240 ? nodes[b % KNOWN] : b;
}

static size_t take_args(struct input *in, uint32_t opcode, uint8_t args[ARGS])
{
    size_t n = take(in) % ARGS;

    take_bytes(in, args, n);
    if (n >= 8 && args[0] < 200) { /* most begin with a handle, some with a node */
        uint64_t id = opcode == FUSE_LINK || opcode == FUSE_RENAME || opcode == FUSE_RENAME2 ? nodes[args[0] % KNOWN]
                                                                                             : handles[args[0] % KNOWN];

        if (opcode != FUSE_OPEN && opcode != FUSE_CREATE && opcode != FUSE_MKNOD && opcode != FUSE_MKDIR)
            memcpy(args, &id, sizeof(id));
    }
    return n;
}

static size_t take_tail(struct input *in, uint8_t tail[TAIL])
{
    static const char *const names[] = {"a", "b", "d", "f", "link", "new", "..", "../sentinel", "user.x", "."};
    uint8_t how = take(in);
    size_t n = 0;

    if (how >= 200) {
        n = take(in);
        take_bytes(in, tail, n);
        return n;
    }
    for (unsigned i = 0; i < how / 64; i++) {
        const char *name = names[take(in) % array_len(names)];

        memcpy(tail + n, name, strlen(name) + 1);
        n += strlen(name) + 1;
    }
    return n;
}

static void step(struct input *in)
{
    static const size_t fixed[] = {
        [FUSE_GETATTR] = 16,         [FUSE_SETATTR] = 88,     [FUSE_MKNOD] = 16,      [FUSE_MKDIR] = 8,
        [FUSE_RENAME] = 8,           [FUSE_LINK] = 8,         [FUSE_OPEN] = 8,        [FUSE_READ] = 40,
        [FUSE_WRITE] = 40,           [FUSE_RELEASE] = 24,     [FUSE_SETXATTR] = 8,    [FUSE_GETXATTR] = 8,
        [FUSE_OPENDIR] = 8,          [FUSE_READDIR] = 40,     [FUSE_RELEASEDIR] = 24, [FUSE_CREATE] = 16,
        [FUSE_FALLOCATE] = 32,       [FUSE_READDIRPLUS] = 40, [FUSE_RENAME2] = 16,    [FUSE_LSEEK] = 24,
        [FUSE_COPY_FILE_RANGE] = 56, [FUSE_TMPFILE] = 16,     [FUSE_FORGET] = 8};
    uint8_t args[ARGS] = {0}, tail[TAIL];
    uint32_t opcode = take(in) % 56;
    uint64_t node = take_node(in);
    size_t n = take_args(in, opcode, args), tail_len;

    if (opcode < array_len(fixed) && fixed[opcode] && n % 8)
        n = fixed[opcode]; /* mostly the right size */
    if (opcode == FUSE_FALLOCATE || opcode == FUSE_SETATTR || opcode == FUSE_WRITE || opcode == FUSE_COPY_FILE_RANGE)
        for (size_t i = 8; i + 8 <= sizeof(args); i += 8) /* files stay small */
            memset(args + i + 3, 0, 5);
    tail_len = take_tail(in, tail);
    if (opcode == FUSE_WRITE) {
        uint32_t size = (uint32_t)tail_len;

        memcpy(args + offsetof(struct fuse_write_in, size), &size, sizeof(size));
    }
    if (opcode == FUSE_INIT)
        memcpy(args, &(uint32_t[]){7, 38}, 8);
    if (!fs_rig_call(&g, opcode, node, args, n, tail, tail_len))
        learn(opcode);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    struct fs_opts o = {.mode = take(&in) % 3, .cache = FS_CACHE_ALWAYS};
    cleanup_free char *sentinel = NULL;
    char path[128];

    fs_rig_init(&g, &o);
    nnodes = nhandles = 0;
    memset(nodes, 0, sizeof(nodes));
    memset(handles, 0, sizeof(handles));
    fs_rig_put(&g, "sentinel", "safe");
    fs_rig_put(&g, "share/a", "content");
    snprintf(path, sizeof(path), "%s/d", g.dir);
    if (mkdir(path, 0755))
        abort();
    fs_rig_put(&g, "share/d/f", "more");
    snprintf(path, sizeof(path), "%s/link", g.dir);
    if (symlink("../sentinel", path))
        abort();
    for (unsigned i = 0; i < STEPS && in.left; i++)
        step(&in);
    sentinel = fs_rig_get(&g, "sentinel");
    if (strcmp(sentinel, "safe"))
        abort();
    fs_rig_fini(&g);
    return 0;
}

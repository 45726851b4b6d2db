#include "devices/block/qcow2_rig.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "vmm/base/cleanup.h"
#include "vmm/base/test.h"

/* ---- The file. ---- */

static struct mem *mem_of(struct blk *b)
{
    return container_of(b, struct mem, b);
}

static void make_room(struct mem *m, uint64_t end)
{
    if (end <= m->size)
        return;
    if (end > m->room) {
        m->room = max_u64(end, m->room * 2);
        m->bytes = realloc(m->bytes, m->room);
        assert_non_null(m->bytes);
    }
    memset(m->bytes + m->size, 0, end - m->size);
    m->size = end;
}

void mem_apply(struct mem *m, const struct mem_op *op)
{
    switch (op->op) {
    case BLK_WRITE:
        make_room(m, op->off + op->len);
        memcpy(m->bytes + op->off, op->data, op->len);
        break;
    case BLK_ZERO:
    case BLK_DISCARD:
        if (op->off < m->size)
            memset(m->bytes + op->off, 0, min_u64(op->len, m->size - op->off));
        break;
    case BLK_READ:
    case BLK_FLUSH:
    case BLK_COPY:
        break;
    }
}

static int change(struct mem *m, const struct blk_io *io)
{
    struct mem_op op = {.op = io->op, .off = io->off, .len = io->len};

    m->changes++;
    if (m->fail_at && m->changes >= m->fail_at)
        return m->fail_with;
    if (io->op == BLK_WRITE) {
        op.data = malloc(io->len);
        assert_non_null(op.data);
        iov_get(io->iov, 0, op.data, io->len);
    }
    mem_apply(m, &op);
    if (m->keep) {
        m->log = realloc(m->log, (m->nlog + 1) * sizeof(*m->log));
        m->log[m->nlog++] = op;
    } else {
        free(op.data);
    }
    return 0;
}

static int mem_rw(struct blk *b, const struct blk_io *io)
{
    struct mem *m = mem_of(b);
    int rc = 0;

    pthread_mutex_lock(&m->lock);
    if (io->op == BLK_READ) {
        uint64_t there = io->off < m->size ? min_u64(io->len, m->size - io->off) : 0;

        iov_put(io->iov, 0, m->bytes + io->off, there);
        iov_zero(io->iov, there, io->len - there);
    } else {
        rc = change(m, io);
    }
    pthread_mutex_unlock(&m->lock);
    return rc;
}

static void mem_close(struct blk *b)
{
    struct mem *m = mem_of(b);

    mem_forget(m);
    free(m->bytes);
    pthread_mutex_destroy(&m->lock);
}

static const struct blk_driver mem_driver = {
    .name = "mem", .size = sizeof(struct mem), .rw = mem_rw, .close = mem_close};

struct mem *mem_create(uint64_t size)
{
    struct mem *m = mem_of(blk_node(&mem_driver, "image.qcow2", NULL));

    pthread_mutex_init(&m->lock, NULL);
    m->b.lim = (struct blk_limits){.size = size, .align = 512, .grows = true};
    make_room(m, size);
    return m;
}

void mem_destroy(struct mem *m)
{
    if (m)
        blk_close(&m->b);
}

void mem_forget(struct mem *m)
{
    for (size_t i = 0; i < m->nlog; i++)
        free(m->log[i].data);
    free(m->log);
    m->log = NULL;
    m->nlog = 0;
}

/* ---- Images. ---- */

const struct blk_keys *rig_keys(void)
{
    static const struct blk_keys keys = {
        .v = {{.id = (char *)"key", .data = (uint8_t *)RIG_KEY, .len = sizeof(RIG_KEY) - 1}}, .n = 1};

    return &keys;
}

void rig_create(struct mem *m, uint64_t size, const char *options)
{
    struct qcow2_create c = {0};
    struct err err = {0};

    opts_default(qcow2_driver.create_opts, &c);
    if (opts_parse(qcow2_driver.create_opts, &c, NULL, options, &err) ||
        qcow2_driver.create(&m->b, size, &c, rig_keys(), &err))
        fail_msg("%s: %s", options, err.msg);
    opts_clear(qcow2_driver.create_opts, &c);
}

struct blk *rig_try(struct mem *m, struct blk *base, const char *options, bool read_only, struct err *err)
{
    const struct blk_open_opts o = {.no_backing = true, .read_only = read_only, .keys = rig_keys()};
    struct blk *b = blk_node(&qcow2_driver, "image.qcow2", NULL);
    int rc;

    m->b.lim.size = align_up(m->size, 512);
    b->file = &m->b;
    opts_default(qcow2_driver.opts, b);
    rc = opts_parse(qcow2_driver.opts, b, NULL, options, err);
    if (!rc)
        rc = qcow2_driver.open(b, &o, err);
    if (!rc) {
        b->backing = base;
        return b;
    }
    rig_close(b);
    return NULL;
}

struct blk *rig_open(struct mem *m, struct blk *base)
{
    struct err err = {0};
    struct blk *b = rig_try(m, base, "", false, &err);

    if (!b)
        fail_msg("%s", err.msg);
    return b;
}

void rig_close(struct blk *b)
{
    qcow2_driver.close(b);
    opts_clear(qcow2_driver.opts, b);
    free(b->name);
    free(b);
}

void rig_check(struct mem *m, bool leaks)
{
    struct blk_check found;
    struct err err = {0};
    struct blk *b = rig_try(m, NULL, "", true, &err);

    if (!b || qcow2_driver.check(b, BLK_FIX_NONE, &found, &err))
        fail_msg("%s", err.msg);
    assert_int_equal(found.failures, 0);
    assert_int_equal(found.corruptions, 0);
    if (!leaks)
        assert_int_equal(found.leaks, 0);
    rig_close(b);
}

/* ---- qemu-img's opinion. ---- */

static void write_file(const char *path, const void *data, size_t n)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    assert_true(!n || fwrite(data, 1, n, f) == n);
    assert_int_equal(fclose(f), 0);
}

static void read_back(struct mem *m, const char *path)
{
    cleanup_fd int fd = open(path, O_RDONLY);
    struct stat st;

    assert_true(fd >= 0 && !fstat(fd, &st));
    free(m->bytes);
    m->size = (uint64_t)st.st_size;
    m->room = m->size + 1;
    m->bytes = malloc(m->room);
    assert_non_null(m->bytes);
    assert_int_equal(read(fd, m->bytes, m->size), m->size);
}

int rig_shell(struct mem *m, const char *command)
{
    char dir[] = "/tmp/qcow2-test-XXXXXX", path[64], line[1024];
    int rc;

    if (system("command -v qemu-img >/dev/null 2>&1"))
        return -1;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/image", dir);
    write_file(path, m->bytes, m->size);
    snprintf(line, sizeof(line), "cd %s; IMAGE=image; truncate -s 1M base; exec >log 2>&1; %s", dir, command);
    rc = system(line);
    if (rc) {
        snprintf(line, sizeof(line), "sed 's/^/# /' %s/log >&2", dir);
        if (system(line))
            rc = -2;
    }
    read_back(m, path);
    snprintf(line, sizeof(line), "rm -r %s", dir);
    assert_int_equal(system(line), 0);
    return rc;
}

static bool is_encrypted(const struct mem *m)
{
    return get_be32(m->bytes + 32);
}

void rig_qemu_check(struct mem *m, bool leaks)
{
    /* qemu-img says 3 for leaks, 2 for corruptions. */
    const char *how = !is_encrypted(m) ? "-f qcow2 $IMAGE"
                                       : "--object secret,id=s,data='" RIG_KEY "' --image-opts "
                                         "driver=qcow2,file.filename=$IMAGE,encrypt.key-secret=s";
    char command[256];
    int rc;

    snprintf(command, sizeof(command), "qemu-img check %s%s", how,
             leaks ? "; case $? in 0|3) exit 0;; *) exit 1;; esac" : "");
    rc = rig_shell(m, command);

    assert_true(rc == 0 || rc == -1);
}

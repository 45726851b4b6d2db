/* Handles: what the guest has open, and the listings of directories. */
#include <unistd.h>

#include "devices/fs/private.h"
#include "vmm/base/cleanup.h"

int handle_new(struct fs *fs, struct node *n, int fd, int flags, bool dir, struct fs_handle **ret)
{
    struct fs_handle *h = fs->free_handles;

    if (h) {
        fs->free_handles = h->next;
    } else if (fs->nhandles < fs->open_max) {
        h = &fs->handles[fs->nhandles];
        h->slot = fs->nhandles++;
    } else {
        if (fd >= 0)
            close(fd);
        return -ENFILE;
    }
    *h = (struct fs_handle){.slot = h->slot, .gen = h->gen, .refs = 1, .dir = dir, .fd = fd, .flags = flags, .node = n};
    node_hold(n);
    node_pin(fs, n);
    *ret = h;
    return 0;
}

struct fs_handle *handle_by_id(struct fs *fs, uint64_t fh, const struct node *n, bool dir)
{
    uint32_t slot = (uint32_t)fh - 1;
    struct fs_handle *h;

    if (slot >= fs->nhandles)
        return NULL;
    h = &fs->handles[slot];
    return h->refs && !h->released && h->gen == fh >> 32 && h->node == n && h->dir == dir ? h : NULL;
}

void handle_put(struct fs *fs, struct fs_handle *h)
{
    if (--h->refs)
        return;
    listing_clear(fs, &h->names);
    if (h->fd >= 0)
        close(h->fd);
    h->gen++;
    h->next = fs->free_handles;
    fs->free_handles = h;
    node_unpin(fs, h->node);
    node_release(fs, h->node);
}

void handles_drop(struct fs *fs)
{
    for (unsigned i = 0; i < fs->nhandles; i++)
        if (fs->handles[i].refs) {
            fs->handles[i].refs = 1;
            handle_put(fs, &fs->handles[i]);
        }
}

struct record {
    uint64_t ino;
    uint8_t type, len;
} __attribute__((packed));

/* Makes room for `more` bytes in an array of `*cap`, which counts in fs->listed. */
static int grow(struct fs *fs, void **buf, size_t *cap, size_t more)
{
    size_t to = max_u64(*cap * 2, 1024);
    void *p;

    while (to < more)
        to *= 2;
    if (fs->listed - *cap + to > LISTED_MAX || !(p = realloc(*buf, to)))
        return -ENOMEM;
    fs->listed += to - *cap;
    *buf = p;
    *cap = to;
    return 0;
}

int listing_add(struct fs *fs, struct listing *l, uint64_t ino, unsigned type, const char *name)
{
    struct record r = {.ino = ino, .type = (uint8_t)type, .len = (uint8_t)strlen(name)};
    size_t need = sizeof(r) + r.len, at_cap = l->max * sizeof(l->at[0]);
    void *buf = l->buf, *at = l->at;
    int rc = 0;

    if (l->cap - l->len < need) {
        rc = grow(fs, &buf, &l->cap, l->len + need);
        l->buf = buf;
    }
    if (!rc && l->n == l->max) {
        rc = grow(fs, &at, &at_cap, 0);
        l->at = at;
        l->max = (unsigned)(at_cap / sizeof(l->at[0]));
    }
    if (rc)
        return rc;
    l->at[l->n++] = (uint32_t)l->len;
    memcpy(l->buf + l->len, &r, sizeof(r));
    memcpy(l->buf + l->len + sizeof(r), name, r.len);
    l->len += need;
    return 0;
}

struct listed listing_get(const struct listing *l, unsigned i)
{
    const char *p = l->buf + l->at[i];
    struct record r;

    memcpy(&r, p, sizeof(r));
    return (struct listed){.ino = r.ino, .type = r.type, .len = r.len, .name = p + sizeof(r)};
}

void listing_clear(struct fs *fs, struct listing *l)
{
    fs->listed -= l->cap + l->max * sizeof(l->at[0]);
    free(l->buf);
    free(l->at);
    *l = (struct listing){0};
}

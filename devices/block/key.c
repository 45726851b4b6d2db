#include "devices/block/key.h"

#include <fcntl.h>

#include "vmm/base/cleanup.h"

static void wipe_free(uint8_t *p, size_t n)
{
    explicit_bzero(p, n);
    free(p);
}

int blk_keys_add(struct blk_keys *k, const char *id, const void *data, size_t len, struct err *err)
{
    uint8_t *copy;

    if (blk_keys_find(k, id))
        return err_set(err, EINVAL, "there are two keys called %s", id);
    if (k->n == BLK_KEYS_MAX)
        return err_set(err, EINVAL, "there are more than %d keys", BLK_KEYS_MAX);
    if (!len || len > BLK_KEY_MAX)
        return err_set(err, EINVAL, "key %s is %s; it has 1 to %d bytes", id, len ? "too long" : "empty", BLK_KEY_MAX);
    copy = xcalloc(1, len);
    memcpy(copy, data, len);
    k->v[k->n++] = (struct blk_key){.id = xstrdup(id), .data = copy, .len = len};
    return 0;
}

int blk_keys_add_file(struct blk_keys *k, const char *id, const char *path, struct err *err)
{
    cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
    uint8_t *buf;
    size_t len = 0;
    ssize_t n;
    int rc;

    if (fd < 0)
        return err_file(err, errno, "key", path);
    buf = xcalloc(1, BLK_KEY_MAX + 1);
    do {
        n = read(fd, buf + len, BLK_KEY_MAX + 1 - len);
        len += n > 0 ? (size_t)n : 0;
    } while (n > 0 || (n < 0 && errno == EINTR));
    rc = n < 0 ? err_file(err, errno, "key", path) : blk_keys_add(k, id, buf, len, err);
    wipe_free(buf, BLK_KEY_MAX + 1);
    return rc;
}

const struct blk_key *blk_keys_find(const struct blk_keys *k, const char *id)
{
    for (unsigned i = 0; k && i < k->n; i++)
        if (!strcmp(k->v[i].id, id))
            return &k->v[i];
    return NULL;
}

void blk_keys_fini(struct blk_keys *k)
{
    for (unsigned i = 0; i < k->n; i++) {
        free(k->v[i].id);
        wipe_free(k->v[i].data, k->v[i].len);
    }
    *k = (struct blk_keys){0};
}

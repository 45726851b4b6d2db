/* Key slots of LUKS version 1: another pass phrase, or one less. */
#include <inttypes.h>

#include "devices/block/luks.h"
#include "vmm/base/cleanup.h"

enum { KEEP, ACTIVE, INACTIVE };

const char *const luks_states[] = {[KEEP] = "keep", [ACTIVE] = "active", [INACTIVE] = "inactive", NULL};

struct slots {
    struct blk *file;
    uint64_t off; /* of the header */
    struct luks_header h;
    const struct blk_keys *keys;
    struct err *err;
};

static int find_key(const struct slots *s, const char *id, const struct blk_key **ret)
{
    *ret = blk_keys_find(s->keys, id);
    return *ret ? 0
                : err_set(s->err, EINVAL, "%s: no key has the id \"%s\"; give it by --object secret,id=%s,file=FILE",
                          s->file->name, id, id);
}

static int failed(const struct slots *s, int rc)
{
    return rc ? err_set(s->err, -rc, "%s: change its keys: %s", s->file->name, strerror(-rc)) : 0;
}

static unsigned active(const struct luks_header *h)
{
    unsigned n = 0;

    for (unsigned i = 0; i < LUKS_SLOTS; i++)
        n += h->slots[i].active;
    return n;
}

/* Is the slot's place one where no other key is? */
static bool has_place(const struct luks_header *h, unsigned slot)
{
    uint64_t n = luks_material(h), at = h->slots[slot].off;

    if (at < LUKS_HEADER || !range_fits(at, n, h->payload))
        return false;
    for (unsigned i = 0; i < LUKS_SLOTS; i++)
        if (i != slot && h->slots[i].active && at < h->slots[i].off + n && h->slots[i].off < at + n)
            return false;
    return true;
}

/* The key is in the file before the header says so. */
static int add(struct slots *s, const struct luks_amend *a)
{
    unsigned slot = a->slot == LUKS_SLOTS ? 0 : a->slot;
    const struct blk_key *key;
    int rc;

    if (!a->new_secret)
        return err_set(s->err, EINVAL, "%s: state=active adds a key: say which by new-secret=ID", s->file->name);
    rc = find_key(s, a->new_secret, &key);
    if (rc)
        return rc;
    while (a->slot == LUKS_SLOTS && slot < LUKS_SLOTS - 1 && s->h.slots[slot].active)
        slot++;
    if (s->h.slots[slot].active)
        return err_set(s->err, EBUSY, "%s: %s in use; free one first by state=inactive", s->file->name,
                       a->slot == LUKS_SLOTS ? "all its key slots are" : "that key slot is");
    if (!has_place(&s->h, slot))
        return err_set(s->err, EINVAL, "%s: its LUKS header has no room for key slot %u", s->file->name, slot);
    return luks_fill(s->file, s->off, &s->h, slot, key, a->ms, s->keys, s->err);
}

/* Which slots shall be free, a bit each. */
static int chosen(struct slots *s, const struct luks_amend *a, unsigned *ret)
{
    const struct blk_key *key;
    int rc;

    if (!a->old_secret && a->slot == LUKS_SLOTS)
        return err_set(s->err, EINVAL, "%s: state=inactive takes a key out: say which by old-secret=ID or keyslot=N",
                       s->file->name);
    if (a->old_secret && a->slot != LUKS_SLOTS)
        return err_set(s->err, EINVAL, "%s: say old-secret or keyslot, not both", s->file->name);
    *ret = 0;
    if (!a->old_secret) {
        *ret = s->h.slots[a->slot].active ? 1u << a->slot : 0;
        return *ret ? 0 : err_set(s->err, ENOENT, "%s: key slot %u is free already", s->file->name, a->slot);
    }
    rc = find_key(s, a->old_secret, &key);
    if (!rc)
        rc = failed(s, luks_slots_of(s->file, s->off, &s->h, key, ret));
    if (rc)
        return rc;
    return *ret ? 0 : err_set(s->err, ENOENT, "%s: key \"%s\" opens none of its slots", s->file->name, a->old_secret);
}

static int take_out(struct slots *s, const struct luks_amend *a, bool force)
{
    unsigned slots;
    int rc = chosen(s, a, &slots);

    if (rc)
        return rc;
    if ((unsigned)__builtin_popcount(slots) == active(&s->h) && !force)
        return err_set(s->err, EPERM, "%s: nothing could ever open it without that key; --force if that is meant",
                       s->file->name);
    for (unsigned i = 0; !rc && i < LUKS_SLOTS; i++)
        if (slots >> i & 1)
            rc = failed(s, luks_erase(s->file, s->off, &s->h, i));
    return rc;
}

int luks_amend(struct blk *file, uint64_t off, uint64_t area, const struct luks_amend *a, const struct blk_keys *keys,
               bool force, struct err *err)
{
    struct slots s = {.file = file, .off = off, .keys = keys, .err = err};
    uint8_t p[LUKS_HEADER];
    int rc;

    if (a->state == KEEP)
        return a->new_secret || a->old_secret || a->slot != LUKS_SLOTS
                   ? err_set(err, EINVAL, "%s: say state=active or state=inactive for a change of its keys", file->name)
                   : 0;
    rc = failed(&s, blk_pread(file, p, sizeof(p), off));
    if (!rc)
        rc = luks_parse(p, area, file->name, &s.h, err);
    if (rc)
        return rc;
    s.h.payload = min_u64(s.h.payload, area);
    return a->state == ACTIVE ? add(&s, a) : take_out(&s, a, force);
}

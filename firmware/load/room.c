/* Free guest RAM as a sorted list of ranges, and the places in it that suit. */
#include "firmware/load/loader.h"

static void room_add(struct room *room, uint64_t base, uint64_t end)
{
    unsigned i = room->n;

    if (base >= end)
        return;
    assert(room->n < ROOM_MAX);
    for (; i > 0 && room->r[i - 1].base > base; i--)
        room->r[i] = room->r[i - 1];
    room->r[i].base = base;
    room->r[i].end = end;
    room->n++;
}

void room_init(struct room *room, const struct e820_entry *e, unsigned n)
{
    room->n = 0;
    for (unsigned i = 0; i < n; i++) {
        if (e[i].type == 1)
            room_add(room, max_u64(e[i].base, MiB(1)), e[i].base + e[i].size);
    }
    for (unsigned i = 0; i < n; i++) {
        if (e[i].type != 1)
            room_take(room, e[i].base, e[i].size);
    }
}

bool room_has(const struct room *room, uint64_t base, uint64_t size)
{
    for (unsigned i = 0; i < room->n; i++) {
        if (base >= room->r[i].base && base <= room->r[i].end && size <= room->r[i].end - base)
            return true;
    }
    return false;
}

void room_take(struct room *room, uint64_t base, uint64_t size)
{
    uint64_t end;
    struct room old = *room;

    if (__builtin_add_overflow(base, size, &end))
        end = UINT64_MAX;
    room->n = 0;
    for (unsigned i = 0; i < old.n; i++) {
        if (old.r[i].end <= base || old.r[i].base >= end) {
            room_add(room, old.r[i].base, old.r[i].end);
            continue;
        }
        room_add(room, old.r[i].base, base);
        room_add(room, end, old.r[i].end);
    }
}

/* How many places one range has; the first of them in `ret`. */
static uint64_t slots_in(const struct room *room, unsigned i, const struct want *w, uint64_t *ret)
{
    uint64_t lo = align_up(max_u64(room->r[i].base, w->min), w->align);
    uint64_t hi = min_u64(room->r[i].end, w->end);

    *ret = lo;
    return lo < hi && w->size <= hi - lo ? (hi - lo - w->size) / w->align + 1 : 0;
}

uint64_t room_slots(const struct room *room, const struct want *w)
{
    uint64_t first, n = 0;

    for (unsigned i = 0; i < room->n; i++)
        n += slots_in(room, i, w, &first);
    return n;
}

gpa_t room_slot(const struct room *room, const struct want *w, uint64_t k)
{
    uint64_t first, n;

    for (unsigned i = 0; i < room->n; i++) {
        n = slots_in(room, i, w, &first);
        if (k < n)
            return first + k * w->align;
        k -= n;
    }
    assert(!"k < room_slots()");
    return 0;
}

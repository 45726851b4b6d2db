/* State streams (vmm/state/state.h).  What is loaded passes its checks, and saves and loads again as the same bytes. */
#include "tools/fuzz/fuzz.h"
#include "vmm/state/state.h"

struct slot {
    uint16_t reg;
    bool on;
    uint8_t kind; /* up to 100 */
};
struct thing {
    uint64_t counter;
    uint32_t word;
    struct slot one, many[2];
    uint8_t fifo[6];
    uint8_t byte;
    bool up;
};

static int slot_check(void *obj, struct err *err)
{
    struct slot *s = obj;

    return s->kind > 100 ? err_set(err, EINVAL, "kind %u", s->kind) : 0;
}

static const struct field slot_fields[] = {
    F_U16(struct slot, reg),
    F_BOOL(struct slot, on),
    F_U8(struct slot, kind),
    F_END,
};
static const struct state_desc slot_desc = {"slot", 1, sizeof(struct slot), slot_fields, slot_check};
static const struct field thing_fields[] = {
    F_U64(struct thing, counter),
    F_U32(struct thing, word),
    F_STRUCT(struct thing, one, &slot_desc),
    F_ARRAY(struct thing, many, &slot_desc),
    F_BYTES(struct thing, fifo),
    F_U8(struct thing, byte),
    F_BOOL(struct thing, up),
    F_END,
};
static const struct state_desc thing_desc = {"thing", 2, sizeof(struct thing), thing_fields, NULL};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct state_reader r = {.buf = data, .len = size};
    struct thing a = {0}, b = {0};
    struct state_writer w = {0};
    struct err err;

    if (state_load(&r, "dev0", &thing_desc, &a, &err)) {
        assert(err.code == EBADMSG && err.msg[0]);
        return 0;
    }
    assert(a.one.kind <= 100 && a.many[0].kind <= 100 && a.many[1].kind <= 100);
    state_save(&w, "dev0", &thing_desc, &a);
    r = (struct state_reader){.buf = w.buf, .len = w.len};
    if (state_load(&r, "dev0", &thing_desc, &b, &err))
        assert(!"what was saved is refused");
    assert(r.off == r.len && !memcmp(&a, &b, sizeof(a)));
    state_writer_fini(&w);
    return 0;
}

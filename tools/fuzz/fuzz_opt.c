/* Option lists, sizes and suggestions (vmm/base/opt.h).  What is accepted can be written out and read back. */
#include "tools/fuzz/fuzz.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/opt.h"

struct bag {
    char *path;
    bool ro;
    uint32_t queues, mode;
    uint64_t seed, size;
    struct opt_list tags;
};

static const char *const modes[] = {"direct", "buffered", NULL};
static const struct opt bag_opts[] = {
    O_STR(struct bag, path, "path", NULL, "a string"),
    O_BOOL(struct bag, ro, "ro", "off", "a switch"),
    O_U32(struct bag, queues, "queues", "1", 1, 16, "a number"),
    O_ENUM(struct bag, mode, "mode", "buffered", modes, "a word"),
    O_U64(struct bag, seed, "seed", "0", 0, 0, "a large number"),
    O_SIZE(struct bag, size, "size", "64K", KiB(4), 0, "a size"),
    O_LIST(struct bag, tags, "tag", "a list"),
    O_END,
};

static void write_out_and_read_back(const struct bag *bag)
{
    struct bag copy = {0};
    struct err err;

    opts_default(bag_opts, &copy);
    for (const struct opt *o = bag_opts; o->name; o++) {
        char a[64], b[64];
        const char *text = opts_get(o, bag, a, sizeof(a)), *again;

        if (!text)
            continue;
        if (opts_set(bag_opts, &copy, o->name, text, &err))
            assert(!"what was written out is refused");
        again = opts_get(o, &copy, b, sizeof(b));
        assert(!strcmp(text, again));
    }
    opts_clear(bag_opts, &copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cleanup_free char *text = xcalloc(1, size + 1);
    struct bag bag = {0};
    struct err err;
    uint64_t n;
    int rc;

    memcpy(text, data, size);
    opts_default(bag_opts, &bag);
    if (!opts_parse(bag_opts, &bag, "path", text, &err))
        write_out_and_read_back(&bag);
    else
        assert(err.code && err.msg[0]);
    opts_clear(bag_opts, &bag);
    nearest_word(text, modes);
    rc = parse_size(text, &n);
    assert(!rc || rc == -EINVAL || rc == -ERANGE);
    return 0;
}

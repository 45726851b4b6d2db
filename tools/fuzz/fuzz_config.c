/* A machine's description in JSON (vmm/machine/config.h).  What resolves can be written out and resolves to itself. */
#include "tools/fuzz/fuzz.h"
#include "vmm/base/cleanup.h"
#include "vmm/machine/config.h"

static void write_out_and_read_back(const struct config *c)
{
    cleanup_free char *first = NULL, *second = NULL;
    struct config again;
    struct err err;

    if (config_to_json(c, &first, &err) < 0)
        return; /* a string that is not UTF-8: came by an escape that JSON cannot hold */
    config_init(&again);
    if (config_from_json(&again, first, "first", &err) || config_resolve(&again, &err) ||
        config_to_json(&again, &second, &err))
        assert(!"what was written out is refused");
    assert(!strcmp(first, second));
    config_fini(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cleanup_free char *text = xcalloc(1, size + 1);
    struct config c;
    struct err err;

    memcpy(text, data, size);
    config_init(&c);
    if (!config_from_json(&c, text, "input", &err) && !config_resolve(&c, &err))
        write_out_and_read_back(&c);
    else
        assert(err.code && err.msg[0]);
    config_fini(&c);
    return 0;
}

/*
 * A dead guest's memory, damaged: each input is a list of places in the structs and tables that readers follow, and
 * what stands there instead.  All readers then read all there is.
 */
#include "tools/fuzz/fuzz.h"
#include "vmm/base/cleanup.h"
#include "vmm/inspect/fake_kernel.h"
#include "vmm/inspect/modules.h"
#include "vmm/inspect/printk.h"
#include "vmm/inspect/spare.h"
#include "vmm/inspect/splat.h"

struct log {
    struct printk_reader reader;
    struct splat_watch splats;
};

static void record(struct printk_reader *r, const struct printk_record *rec)
{
    assert(strlen(rec->text) <= rec->len);
    splat_line(&container_of(r, struct log, reader)->splats, rec->text);
}

static void look(const struct vmcoreinfo *k)
{
    const struct cpu_state cpu = {.gpr[CPU_RSP] = FAKE_IMAGE + FAKE_STACK};
    struct log log = {.reader.record = record, .splats.wanted = UINT32_MAX};
    uint64_t trace[TRACE_MAX];
    struct symbols s;
    struct spare spare;

    if (spare_find(k, &spare) == 0)
        spare_fini(&spare);
    for (unsigned i = 0; i < 2; i++)
        if (printk_read(k, &log.reader) < 0)
            break;
    if (symbols_read(k, &s) < 0)
        return;
    symbols_add_modules(k, &s);
    for (unsigned i = 0, n = symbols_trace(&s, k, &cpu, trace); i < n; i++) {
        char name[64];

        symbols_name(&s, trace[i], name, sizeof(name));
    }
    symbols_fini(&s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const gpa_t places[] = {FAKE_NOTE,
                                   FAKE_NOTE + 256,
                                   FAKE_NOTE + 512,
                                   FAKE_NOTE + 768,
                                   FAKE_PRB,
                                   FAKE_RING,
                                   FAKE_DESCS,
                                   FAKE_INFOS,
                                   FAKE_DATA,
                                   FAKE_KALLSYMS,
                                   FAKE_KALLSYMS + 0x200,
                                   FAKE_KALLSYMS + 0x400,
                                   FAKE_KALLSYMS + 0x800,
                                   FAKE_TABLES,
                                   FAKE_STACK,
                                   FAKE_BTF,
                                   FAKE_BTF + 256,
                                   FAKE_BTF + 512,
                                   FAKE_MODULES,
                                   FAKE_ALPHA,
                                   FAKE_ALPHA + 256,
                                   FAKE_BETA,
                                   FAKE_BETA + 256,
                                   FAKE_NOTE + 1024,
                                   FAKE_NOTE + 1280,
                                   FAKE_NOTE + 1536,
                                   FAKE_ROOTS,
                                   FAKE_SECTIONS,
                                   FAKE_PAGES,
                                   FAKE_MORE_PAGES};
    struct bytes b = {data, size};
    struct gmem *m = fake_kernel_create();
    struct vmcoreinfo k;

    while (b.left) {
        gpa_t at = places[bytes_take(&b, 1) % array_len(places)] + bytes_take(&b, 1);
        uint64_t value = bytes_take(&b, 8);

        fake_put(m, at, &value, 1 + bytes_take(&b, 1) % 8);
    }
    if (vmcoreinfo_find(m, &k) == 0) {
        look(&k);
        vmcoreinfo_fini(&k);
    }
    gmem_destroy(m);
    return 0;
}

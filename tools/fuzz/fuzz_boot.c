/* A kernel's log for a boot profile: it is written out whatever the log says, without what terminals obey. */
#include "tools/fuzz/fuzz.h"
#include "vmm/base/cleanup.h"
#include "vmm/report/boot.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct test_result r = {.start_ns = 1000, .boot_ns = 2000, .byte_ns = 10};
    struct boot *b = boot_create();
    char *text cleanup_free = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);

    if (!f)
        abort();
    boot_feed(b, (const char *)data, size);
    boot_write(b, &r, 0, NULL, f);
    fclose(f);
    assert(n && text[n - 1] == '\n' && !memchr(text, 27, n));
    boot_destroy(b);
    return 0;
}

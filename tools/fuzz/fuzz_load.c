/*
 * Kernel files (firmware/load).  The first byte says what the rest is: a file, the vmlinux of a payload, or a payload,
 * which may also hold the kernel's configuration.  Whatever it is, it boots or is refused with a reason.
 */
#include "firmware/load/ikconfig.h"
#include "firmware/load/kernel.h"
#include "firmware/load/payload.h"
#include "tools/fuzz/fuzz.h"
#include "vmm/base/cleanup.h"

enum { RAM = 8 << 20, LOW_END = 0x9fc00, UNPACKED_MAX = 1 << 20 };

static const struct e820_entry map[] = {
    {.base = 0, .size = LOW_END, .type = 1},
    {.base = MiB(1), .size = RAM - MiB(1), .type = 1},
};

static void load_file(struct gmem *mem, const uint8_t *data, size_t size, bool kaslr)
{
    const struct boot_params_in in = {.cmdline = "quiet",
                                      .kaslr = kaslr,
                                      .e820 = map,
                                      .ne820 = array_len(map),
                                      .low_free = 0x1000,
                                      .low_end = LOW_END};
    const struct image im = {.name = "kernel", .size = size, .mem = data, .fd = -1};
    struct boot_regs regs;
    struct load ld = {.mem = mem, .in = &in, .regs = &regs, .low_next = in.low_free, .ninitrds = 1};
    struct err err = {0};

    ld.initrds[0] = (struct image){.name = "initrd", .size = 5, .mem = (const uint8_t *)"12345", .fd = -1};
    room_init(&ld.room, map, array_len(map));
    if (load_image(&ld, &im, false, &err))
        assert(err.code && err.msg[0]);
    else
        assert(regs.gdt && (regs.entry != BOOT_LINUX64 || (regs.cr3 && regs.rsi)));
}

static void unpack_vmlinux(struct gmem *mem, const uint8_t *data, size_t size)
{
    const struct setup_header hdr = {.kernel_alignment = MiB(2), .init_size = 1};
    struct kernel k;
    struct err err = {0};

    if (kernel_unpack(data, size, &hdr, &k, &err)) {
        assert(err.code && err.msg[0]);
        return;
    }
    assert(kernel_valid(&k));
    if (kernel_place(&k, mem, MiB(2), MiB(2), &err))
        assert(k.memsz > RAM - MiB(2));
    kernel_fini(&k);
}

static void unpack_payload(const uint8_t *data, size_t size)
{
    struct buf out;
    char *text cleanup_free = NULL;
    size_t len;

    if (ikconfig_find(data, size, &text) == 0)
        assert(strlen(text) <= size * 1100); /* deflate packs no better */

    if (payload_decompress(data, size, UNPACKED_MAX, &out, &len) == 0) {
        assert(len <= UNPACKED_MAX);
        buf_free(&out);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct gmem *mem; /* what one input left there does no harm to the next */
    int rc = 0;

    if (!mem)
        rc = gmem_create(RAM, GMEM_SHARED, 0, &mem, NULL);
    assert(!rc);
    if (size == 0)
        return 0;
    switch (data[0] & 3) {
    case 0:
    case 1:
        load_file(mem, data + 1, size - 1, data[0] & 1);
        break;
    case 2:
        unpack_vmlinux(mem, data + 1, size - 1);
        break;
    case 3:
        unpack_payload(data + 1, size - 1);
        break;
    }
    return 0;
}

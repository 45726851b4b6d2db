#include "firmware/load/load.h"
#include "firmware/load/test_images.h"

#include <limits.h>
#include <sys/stat.h>

#include "firmware/load/kernel.h"

enum { RAM = 64 << 20, LOW_FREE = 0x1000, LOW_END = 0x9fc00 };

static const struct e820_entry small_map[] = {
    {.base = 0, .size = LOW_END, .type = 1},
    {.base = MiB(1), .size = RAM - MiB(1), .type = 1},
};

/* A board, and a directory for the files. */
struct world {
    char dir[64], kernel[96], initrd[96];
    struct gmem *mem;
    struct boot_params_in in;
    struct boot_regs regs;
    struct err err;
};

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));

    strcpy(w->dir, "/tmp/bothy-load-XXXXXX");
    if (!w || !mkdtemp(w->dir) || gmem_create(RAM, GMEM_SHARED, 0, &w->mem, &w->err) < 0)
        return -1;
    snprintf(w->kernel, sizeof(w->kernel), "%s/kernel", w->dir);
    snprintf(w->initrd, sizeof(w->initrd), "%s/initrd", w->dir);
    setenv("XDG_CACHE_HOME", w->dir, 1);
    w->in = (struct boot_params_in){.kernel = w->kernel,
                                    .cmdline = "quiet",
                                    .e820 = small_map,
                                    .ne820 = array_len(small_map),
                                    .low_free = LOW_FREE,
                                    .low_end = LOW_END};
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;

    unlink(w->kernel);
    unlink(w->initrd);
    gmem_destroy(w->mem);
    return rmdir(w->dir) < 0 ? -1 : (free(w), 0);
}

/* Writes the kernel, which it frees, and boots it in fresh RAM. */
static int boot(struct world *w, struct bytes kernel)
{
    write_file(w->kernel, kernel.p, kernel.n);
    bytes_free(&kernel);
    assert_int_equal(gmem_discard(w->mem, 0, RAM), 0);
    memset(&w->err, 0, sizeof(w->err));
    return boot_load(w->mem, &w->in, &w->regs, &w->err);
}

static void assert_boots(struct world *w, struct bytes kernel)
{
    int rc = boot(w, kernel);

    if (rc < 0)
        fail_msg("%s", w->err.msg);
}

/* A failure names the file and ends in a remedy. */
static void assert_fails(struct world *w, struct bytes kernel, const char *word)
{
    assert_true(boot(w, kernel) < 0);
    if (!strstr(w->err.msg, word))
        fail_msg("\"%s\" in: %s", word, w->err.msg);
}

static void peek(struct world *w, gpa_t at, void *dst, size_t n)
{
    assert_int_equal(gmem_read(w->mem, at, dst, n), 0);
}

static uint32_t peek32(struct world *w, gpa_t at)
{
    uint32_t v;

    peek(w, at, &v, sizeof(v));
    return v;
}

static uint64_t peek64(struct world *w, gpa_t at)
{
    uint64_t v;

    peek(w, at, &v, sizeof(v));
    return v;
}

static void assert_text(struct world *w, gpa_t at, const char *text)
{
    char got[256];

    assert_true(strlen(text) < sizeof(got));
    peek(w, at, got, strlen(text) + 1);
    assert_string_equal(got, text);
}

static struct boot_params zero_page(struct world *w)
{
    struct boot_params bp;

    peek(w, w->regs.rsi, &bp, sizeof(bp));
    return bp;
}

static void bzimage_is_unpacked_and_entered_in_long_mode(void **state)
{
    struct world *w = *state;
    struct bytes vmlinux = fake_vmlinux();
    uint8_t got[0x3000], bss[0x1000], zero[0x1000] = {0};

    assert_boots(w, fake_kernel());
    assert_int_equal(w->regs.entry, BOOT_LINUX64);
    assert_int_equal(w->regs.rip, FAKE_PHYS + FAKE_ENTRY);
    peek(w, FAKE_PHYS, got, sizeof(got));
    assert_memory_equal(got, vmlinux.p + 0x1000, sizeof(got));
    peek(w, FAKE_PHYS + sizeof(got), bss, sizeof(bss));
    assert_memory_equal(bss, zero, sizeof(bss));
    bytes_free(&vmlinux);
}

static void identity_map_covers_4_gib(void **state)
{
    struct world *w = *state;

    assert_boots(w, fake_kernel());
    for (uint64_t at = 0; at < GiB(4); at += MiB(2)) {
        uint64_t pdpt = peek64(w, w->regs.cr3), pd = peek64(w, (pdpt & ~0xfffull) + (at >> 30) * 8);
        uint64_t pte = peek64(w, (pd & ~0xfffull) + (at >> 21) % 512 * 8);

        assert_int_equal(pdpt & 0xfff, 3); /* present, writable */
        assert_int_equal(pd & 0xfff, 3);
        assert_int_equal(pte, at | 0x83); /* and large */
    }
    assert_int_equal(w->regs.cr3 % 4096, 0);
}

static void gdt_is_flat_and_of_the_entry_s_width(void **state)
{
    struct world *w = *state;
    const uint32_t code = 0x90;

    assert_boots(w, fake_kernel());
    assert_int_equal(peek64(w, w->regs.gdt + 0x10), 0x00af9b000000ffff); /* long, level 0, code */
    assert_int_equal(peek64(w, w->regs.gdt + 0x18), 0x00cf93000000ffff); /* 4 GiB, level 0, data */
    assert_boots(w, elf64(MiB(2), MiB(2), &code, 4, 4, MiB(2)));
    assert_int_equal(peek64(w, w->regs.gdt + 0x10), 0x00cf9b000000ffff); /* 32 bits */
}

static void boot_params_say_what_the_board_knows(void **state)
{
    struct world *w = *state;
    struct boot_params bp;

    w->in.rsdp = 0xe0000;
    assert_boots(w, fake_kernel());
    bp = zero_page(w);
    assert_int_equal(bp.hdr.header, 0x53726448);
    assert_int_equal(bp.hdr.type_of_loader, 0xff);
    assert_int_equal(bp.hdr.loadflags, LOADED_HIGH);
    assert_int_equal(bp.hdr.init_size, FAKE_INIT_SIZE);
    assert_int_equal(bp.acpi_rsdp_addr, 0xe0000);
    assert_int_equal(bp.sentinel, 0);
    assert_int_equal(bp.hdr.ramdisk_size, 0);
    assert_int_equal(bp.hdr.setup_data, 0);
    assert_text(w, bp.hdr.cmd_line_ptr, "quiet");
    assert_int_equal(bp.e820_entries, 2);
    assert_int_equal(bp.e820_table[1].addr, MiB(1));
    assert_int_equal(bp.e820_table[1].size, RAM - MiB(1));
    assert_int_equal(bp.e820_table[1].type, 1);
}

static void device_tree_comes_in_setup_data(void **state)
{
    struct world *w = *state;
    struct setup_data head;

    w->in.dtb = "a flattened tree";
    w->in.dtb_len = 17;
    assert_boots(w, fake_kernel());
    peek(w, zero_page(w).hdr.setup_data, &head, sizeof(head));
    assert_int_equal(head.next, 0);
    assert_int_equal(head.type, SETUP_DTB);
    assert_int_equal(head.len, 17);
    assert_text(w, zero_page(w).hdr.setup_data + sizeof(head), "a flattened tree");
    assert_int_equal(zero_page(w).hdr.setup_data % 8, 0);
}

static void kaslr_moves_the_kernel_and_relocates_it(void **state)
{
    struct world *w = *state;
    struct bytes plain = fake_vmlinux();
    const uint8_t *code = plain.p + 0x1000;
    uint64_t bases = 0, virts = 0;

    w->in.kaslr = true;
    for (int i = 0; i < 40; i++) {
        uint64_t base, virt;

        assert_boots(w, fake_kernel());
        base = w->regs.rip - FAKE_ENTRY;
        assert_true(base % MiB(2) == 0 && base >= FAKE_PHYS && base + FAKE_INIT_SIZE <= RAM);
        virt = peek64(w, base + FAKE_ABS64) - get_le64(code + FAKE_ABS64);
        assert_true(virt % MiB(2) == 0 && FAKE_PHYS + virt + FAKE_INIT_SIZE <= GiB(1));
        assert_int_equal(peek32(w, base + FAKE_ABS32), (uint32_t)(get_le32(code + FAKE_ABS32) + virt));
        assert_int_equal(peek32(w, base + FAKE_INVERSE), (uint32_t)(get_le32(code + FAKE_INVERSE) - virt));
        assert_int_equal(peek32(w, base + FAKE_ABS32 + 4), get_le32(code + FAKE_ABS32 + 4));
        assert_int_equal(peek32(w, base + FAKE_ABS32 - 4), get_le32(code + FAKE_ABS32 - 4));
        assert_true(zero_page(w).hdr.loadflags & KASLR_FLAG);
        bases |= 1ull << (base >> 21);
        virts |= 1ull << (virt >> 21) % 64;
    }
    /* 24 places and 504 addresses: all alike would be a chance of 10^-50. */
    assert_true((bases & (bases - 1)) && (virts & (virts - 1)));
    bytes_free(&plain);
}

static void nokaslr_is_a_word_of_its_own(void **state)
{
    struct world *w = *state;
    static const char *const lines[] = {"nokaslr", "quiet nokaslr", "nokaslr quiet", "a nokaslr b"};
    static const char *const others[] = {"nokaslrx", "xnokaslr", "a=nokaslr", ""};

    w->in.kaslr = true;
    for (size_t i = 0; i < array_len(lines); i++) {
        w->in.cmdline = lines[i];
        assert_boots(w, fake_kernel());
        assert_int_equal(w->regs.rip, FAKE_PHYS + FAKE_ENTRY);
        assert_false(zero_page(w).hdr.loadflags & KASLR_FLAG);
    }
    for (size_t i = 0; i < array_len(others); i++) {
        w->in.cmdline = others[i];
        assert_boots(w, fake_kernel());
        assert_true(zero_page(w).hdr.loadflags & KASLR_FLAG);
    }
}

static void initrds_lie_one_behind_the_other_at_the_top(void **state)
{
    struct world *w = *state;
    struct boot_params bp;

    write_file(w->initrd, "12345", 5);
    w->in.initrds[0] = w->in.initrds[1] = w->initrd;
    w->in.ninitrds = 2;
    assert_boots(w, fake_kernel());
    bp = zero_page(w);
    assert_int_equal(bp.hdr.ramdisk_image, RAM - 4096);
    assert_int_equal(bp.hdr.ramdisk_size, 8 + 5);
    assert_int_equal(bp.ext_ramdisk_image, 0);
    assert_text(w, RAM - 4096, "12345");
    assert_text(w, RAM - 4096 + 8, "12345");
}

static void initrd_stays_below_what_the_kernel_allows(void **state)
{
    struct world *w = *state;
    struct bytes vmlinux = fake_vmlinux(), payload = gzip(vmlinux.p, vmlinux.n);
    struct setup_header h = fake_header((uint32_t)payload.n);

    h.initrd_addr_max = MiB(40) - 1;
    write_file(w->initrd, "12345", 5);
    w->in.initrds[0] = w->initrd;
    w->in.ninitrds = 1;
    assert_boots(w, fake_bzimage(&h, payload.p));
    assert_int_equal(zero_page(w).hdr.ramdisk_image, MiB(40) - 4096);
    bytes_free(&vmlinux);
    bytes_free(&payload);
}

static void initrd_goes_above_4_gib_where_it_must(void **state)
{
    struct world *w = *state;
    const struct e820_entry map[] = {{.base = MiB(1), .size = MiB(17), .type = 1},
                                     {.base = GiB(4), .size = MiB(8), .type = 1}};
    struct bytes big = {0};
    struct boot_params bp;

    gmem_destroy(w->mem);
    assert_int_equal(gmem_create(GiB(3) + MiB(8), GMEM_SHARED, 0, &w->mem, &w->err), 0);
    bytes_put(&big, MiB(2), "end", 4);
    write_file(w->initrd, big.p, big.n);
    w->in.initrds[0] = w->initrd;
    w->in.ninitrds = 1;
    w->in.e820 = map;
    assert_boots(w, fake_kernel()); /* it and 1 MiB more lie below 4 GiB */
    bp = zero_page(w);
    assert_int_equal(bp.ext_ramdisk_image, 1);
    assert_int_equal(bp.hdr.ramdisk_image, MiB(8) - align_up(big.n, 4096));
    assert_text(w, GiB(4) + bp.hdr.ramdisk_image + MiB(2), "end");
    truncate(w->initrd, MiB(9));
    assert_fails(w, fake_kernel(), "-m ");
    bytes_free(&big);
}

static void initrd_larger_than_ram_says_how_much_would_do(void **state)
{
    struct world *w = *state;

    write_file(w->initrd, "12345", 5);
    assert_int_equal(truncate(w->initrd, MiB(60)), 0);
    w->in.initrds[0] = w->initrd;
    w->in.ninitrds = 1;
    assert_fails(w, fake_kernel(), "-m 79M"); /* 16 + 1 for the kernel, 60, and 2 */
    assert_int_equal(truncate(w->initrd, GiB(3)), 0);
    assert_true(boot(w, fake_kernel()) < 0);
}

static void command_line_may_be_as_long_as_the_kernel_says(void **state)
{
    struct world *w = *state;
    char line[FAKE_CMDLINE + 2] = "";

    memset(line, 'x', FAKE_CMDLINE);
    w->in.cmdline = line;
    assert_boots(w, fake_kernel());
    assert_text(w, zero_page(w).hdr.cmd_line_ptr, line);
    line[FAKE_CMDLINE] = 'x';
    assert_fails(w, fake_kernel(), "takes 100");
    w->in.cmdline = "";
    assert_boots(w, fake_kernel());
    assert_text(w, zero_page(w).hdr.cmd_line_ptr, "");
}

static void unknown_payload_is_left_to_the_guest(void **state)
{
    struct world *w = *state;
    static const char payload[] = "compressed by means unknown";
    struct setup_header h = fake_header(sizeof(payload));

    w->in.kaslr = false;
    assert_boots(w, fake_bzimage(&h, payload));
    assert_int_equal(w->regs.entry, BOOT_LINUX64);
    assert_int_equal(w->regs.rip, FAKE_PHYS + 0x200);
    assert_text(w, FAKE_PHYS + 0x80, payload);
    assert_text(w, zero_page(w).hdr.cmd_line_ptr, "quiet nokaslr");
    w->in.kaslr = true;
    assert_boots(w, fake_bzimage(&h, payload));
    assert_text(w, zero_page(w).hdr.cmd_line_ptr, "quiet");
}

static void small_ram_is_told_how_much_the_kernel_needs(void **state)
{
    struct world *w = *state;
    const struct e820_entry map[] = {{.base = MiB(1), .size = MiB(15), .type = 1}};
    static const char payload[] = "compressed by means unknown";
    struct setup_header h = fake_header(sizeof(payload));
    uint8_t code[16] = {0};

    w->in.e820 = map;
    w->in.ne820 = 1;
    assert_fails(w, fake_kernel(), "-m 18M");
    assert_fails(w, fake_bzimage(&h, payload), "-m 18M");
    assert_fails(w, elf64(MiB(15), MiB(15), code, sizeof(code), MiB(2), 0), "-m 18M");
}

static void vmlinux_is_entered_where_it_lies(void **state)
{
    struct world *w = *state;
    uint8_t code[5000];

    memset(code, 0x90, sizeof(code));
    assert_boots(w, elf64(MiB(2), MiB(2) + 8, code, sizeof(code), 9000, 0));
    assert_int_equal(w->regs.entry, BOOT_LINUX64);
    assert_int_equal(w->regs.rip, MiB(2) + 8);
    assert_int_equal(peek32(w, MiB(2) + 4996), 0x90909090);
    assert_int_equal(peek32(w, MiB(2) + 5000), 0);
    assert_text(w, zero_page(w).hdr.cmd_line_ptr, "quiet");
}

static void pvh_note_is_obeyed(void **state)
{
    struct world *w = *state;
    uint32_t code[16] = {0}, info[14];

    write_file(w->initrd, "12345", 5);
    w->in.initrds[0] = w->initrd;
    w->in.ninitrds = 1;
    w->in.rsdp = 0xe0000;
    assert_boots(w, elf64(MiB(2), MiB(2), code, sizeof(code), 64, MiB(2) + 16));
    assert_int_equal(w->regs.entry, BOOT_PVH);
    assert_int_equal(w->regs.rip, MiB(2) + 16);
    peek(w, w->regs.rbx, info, sizeof(info));
    assert_int_equal(info[0], 0x336ec578);
    assert_int_equal(info[1], 1);                     /* version */
    assert_int_equal(info[3], 1);                     /* modules */
    assert_int_equal(peek64(w, info[4]), RAM - 4096); /* the first one's address */
    assert_int_equal(peek64(w, info[4] + 8), 5);      /* and length */
    assert_text(w, info[6], "quiet");
    assert_int_equal(info[8], 0xe0000);
    assert_int_equal(info[12], 2); /* memory map */
    assert_int_equal(peek64(w, info[10] + 24), MiB(1));
    assert_int_equal(peek64(w, info[10] + 24 + 8), RAM - MiB(1));
    assert_int_equal(peek32(w, info[10] + 24 + 16), 1);
}

static void multiboot_elf_gets_map_and_modules(void **state)
{
    struct world *w = *state;
    const uint32_t code[] = {0x1badb002, 3, 0u - 0x1badb002 - 3, 0x90909090};
    uint32_t info[22], mods[8];
    char line[128];

    write_file(w->initrd, "12345", 5);
    w->in.initrds[0] = w->in.initrds[1] = w->initrd;
    w->in.ninitrds = 2;
    assert_boots(w, elf32(MiB(4), MiB(4) + 12, code, sizeof(code), 64));
    assert_int_equal(w->regs.entry, BOOT_MULTIBOOT);
    assert_int_equal(w->regs.rip, MiB(4) + 12);
    assert_int_equal(w->regs.rax, 0x2badb002);
    peek(w, w->regs.rbx, info, sizeof(info));
    assert_int_equal(info[0], 0x24d);                 /* memory, command line, modules, map, loader */
    assert_int_equal(info[1], 639);                   /* KiB below 1 MiB */
    assert_int_equal(info[2], (RAM - MiB(1)) / 1024); /* and above */
    assert_int_equal(peek32(w, 0x413) & 0xffff, 639); /* as a BIOS would leave it */
    snprintf(line, sizeof(line), "%s quiet", w->kernel);
    assert_text(w, info[4], line);
    assert_int_equal(info[5], 2);
    peek(w, info[6], mods, sizeof(mods));
    assert_int_equal(mods[1] - mods[0], 5);
    assert_text(w, mods[0], "12345");
    assert_text(w, mods[2], w->initrd);
    assert_text(w, mods[4], "12345");
    assert_true(mods[4] != mods[0]);
    assert_int_equal(info[11], 2 * 24); /* map */
    assert_int_equal(peek32(w, info[12]), 20);
    assert_int_equal(peek64(w, info[12] + 24 + 4), MiB(1));
}

static void multiboot_header_may_say_where_things_go(void **state)
{
    struct world *w = *state;
    uint32_t head[12] = {[4] = 0x1badb002, [5] = 1 << 16, [6] = 0u - 0x1badb002 - (1 << 16)};
    struct bytes b = {0};

    head[7] = MiB(1) + 0x10;  /* header_addr */
    head[8] = MiB(1);         /* load_addr */
    head[9] = MiB(1) + 0x30;  /* load_end */
    head[10] = MiB(1) + 0x99; /* bss_end */
    head[11] = MiB(1) + 0x2c; /* entry */
    bytes_put(&b, 0, head, sizeof(head));
    bytes_put(&b, b.n, "not loaded", 11);
    assert_boots(w, b);
    assert_int_equal(w->regs.rip, MiB(1) + 0x2c);
    assert_int_equal(peek32(w, MiB(1) + 0x10), 0x1badb002);
    assert_int_equal(peek32(w, MiB(1) + 0x30), 0);
    /* Below the file's start, and beyond its end. */
    head[8] = MiB(1) - 0x10;
    b = (struct bytes){0};
    bytes_put(&b, 0, head, sizeof(head));
    assert_fails(w, b, "make no sense");
    head[8] = MiB(1);
    head[9] = MiB(1) + 0x31;
    b = (struct bytes){0};
    bytes_put(&b, 0, head, sizeof(head));
    assert_fails(w, b, "truncated");
}

static void what_is_no_kernel_is_named(void **state)
{
    struct world *w = *state;
    static const struct {
        size_t off;
        const char *magic, *word;
    } files[] = {
        {0, "\x1f\x8b\x08", "gunzip"}, {0, "QFI\xfb", "qcow2"},
        {56, "ARM\x64", "arm64"},      {0, "MZ", "EFI"},
        {0, "070701", "initramfs"},    {510, "\x55\xaa", "disk"},
        {0, "!<arch>\n", "package"},   {0, "hello", "give a bzImage"},
    };

    for (size_t i = 0; i < array_len(files); i++) {
        struct bytes b = {0};

        bytes_put(&b, files[i].off, files[i].magic, strlen(files[i].magic));
        bytes_put(&b, b.n, "xxxx", 4);
        assert_fails(w, b, files[i].word);
    }
}

static void files_that_cannot_be_read_are_named(void **state)
{
    struct world *w = *state;

    w->in.kernel = "/nowhere/vmlinuz";
    assert_fails(w, fake_kernel(), "kernel /nowhere/vmlinuz: no such file");
    w->in.kernel = w->dir;
    assert_fails(w, fake_kernel(), "directory");
    w->in.kernel = "/dev/null";
    assert_fails(w, fake_kernel(), "regular file");
    w->in.kernel = w->kernel;
    w->in.initrds[0] = "/nowhere/initrd";
    w->in.ninitrds = 1;
    assert_fails(w, fake_kernel(), "initrd /nowhere/initrd: no such file");
    assert_fails(w, (struct bytes){.p = malloc(1)}, "empty");
}

static void truncated_kernel_says_how_much_is_missing(void **state)
{
    struct world *w = *state;
    struct bytes whole = fake_kernel();
    char text[64];

    for (size_t n = 1; n < whole.n - 16; n += 1 + whole.n / 100) {
        struct bytes b = {0};

        bytes_put(&b, 0, whole.p, n);
        if (n < 1024)
            assert_true(boot(w, b) < 0);
        else
            assert_fails(w, b, "truncated");
    }
    snprintf(text, sizeof(text), "the file has %u", 2000);
    whole.n = 2000;
    assert_fails(w, whole, text);
}

static void damaged_payload_is_found(void **state)
{
    struct world *w = *state;
    struct bytes b = fake_kernel();

    b.p[(FAKE_SETUP_SECTS + 1) * 512 + 0x80 + 50] ^= 1;
    assert_fails(w, b, "damaged");
}

static void header_fields_are_checked(void **state)
{
    struct world *w = *state;
    struct bytes vmlinux = fake_vmlinux(), payload = gzip(vmlinux.p, vmlinux.n);
    const struct setup_header good = fake_header((uint32_t)payload.n);
    struct setup_header h;

#define SPOILT(field, value, word) \
    h = good;                      \
    h.field = value;               \
    assert_fails(w, fake_bzimage(&h, payload.p), word)
    SPOILT(version, 0x20b, "boot protocol 2.11");
    SPOILT(xloadflags, 0, "32-bit");
    SPOILT(setup_sects, 255, "truncated");
    SPOILT(syssize, UINT32_MAX, "truncated");
    SPOILT(kernel_alignment, 0, "alignment");
    SPOILT(kernel_alignment, 3 << 20, "alignment");
    SPOILT(kernel_alignment, 1u << 31, "alignment");
    SPOILT(init_size, 0, "damaged");
    SPOILT(init_size, UINT32_MAX, "damaged");
    SPOILT(init_size, MiB(49), "-m 66M");
    SPOILT(pref_address, UINT64_MAX, "damaged");
#undef SPOILT
    /* A file that ends before the payload does. */
    vmlinux.n = 0;
    h = good;
    h.payload_length += 100;
    bytes_free(&payload);
    payload.p = calloc(1, h.payload_length);
    {
        struct bytes b = fake_bzimage(&h, payload.p);

        b.n -= 50;
        assert_fails(w, b, "truncated");
    }
    free(payload.p);
    bytes_free(&vmlinux);
}

static void elf_headers_are_checked(void **state)
{
    struct world *w = *state;
    uint8_t code[64] = {0x90};
    enum { PH = sizeof(Elf64_Ehdr) };
    static const struct {
        size_t off;
        size_t n;
        uint64_t value;
        const char *word;
    } spoilt[] = {
        {offsetof(Elf64_Ehdr, e_machine), 2, EM_AARCH64, "machine"},
        {offsetof(Elf64_Ehdr, e_ident) + EI_DATA, 1, ELFDATA2MSB, "x86"},
        {offsetof(Elf64_Ehdr, e_ident) + EI_CLASS, 1, 9, "x86"},
        {offsetof(Elf64_Ehdr, e_type), 2, ET_REL, "linked"},
        {offsetof(Elf64_Ehdr, e_phnum), 2, 0, "program headers"},
        {offsetof(Elf64_Ehdr, e_phnum), 2, 0xffff, "program headers"},
        {offsetof(Elf64_Ehdr, e_phentsize), 2, 0, "program headers"},
        {offsetof(Elf64_Ehdr, e_phoff), 8, UINT64_MAX, "truncated"},
        {offsetof(Elf64_Ehdr, e_phoff), 8, UINT64_MAX - 10, "truncated"},
        {offsetof(Elf64_Ehdr, e_entry), 8, 0, "entry"},
        {offsetof(Elf64_Ehdr, e_entry), 8, MiB(2) + 64, "entry"},
        {PH + offsetof(Elf64_Phdr, p_offset), 8, UINT64_MAX, "truncated"},
        {PH + offsetof(Elf64_Phdr, p_offset), 8, 0x1001, "truncated"},
        {PH + offsetof(Elf64_Phdr, p_filesz), 8, 65, "no sense"},
        {PH + offsetof(Elf64_Phdr, p_filesz), 8, UINT64_MAX, "no sense"},
        {PH + offsetof(Elf64_Phdr, p_memsz), 8, 0, "nothing"},
        {PH + offsetof(Elf64_Phdr, p_memsz), 8, UINT64_MAX, "no sense"},
        {PH + offsetof(Elf64_Phdr, p_memsz), 8, GiB(1), "-m "},
        {PH + offsetof(Elf64_Phdr, p_memsz), 8, GiB(64), "outside"},
        {PH + offsetof(Elf64_Phdr, p_paddr), 8, UINT64_MAX - 63, "no sense"},
        {PH + offsetof(Elf64_Phdr, p_paddr), 8, UINT64_MAX - 64, "outside"},
        {PH + offsetof(Elf64_Phdr, p_paddr), 8, 0x7c00, "1 MiB"},
        {PH + offsetof(Elf64_Phdr, p_paddr), 8, MiB(1) - 1, "1 MiB"},
        {PH + offsetof(Elf64_Phdr, p_type), 4, PT_NULL, "nothing"},
    };

    for (size_t i = 0; i < array_len(spoilt); i++) {
        struct bytes b = elf64(MiB(2), MiB(2), code, sizeof(code), sizeof(code), 0);

        bytes_put(&b, spoilt[i].off, &spoilt[i].value, spoilt[i].n);
        assert_fails(w, b, spoilt[i].word);
    }
    assert_fails(w, elf32(MiB(2), MiB(2), code, sizeof(code), 64), "32-bit");
}

static void notes_that_make_no_sense_are_no_pvh(void **state)
{
    struct world *w = *state;
    uint8_t code[64] = {0};
    static const uint32_t values[] = {0, 3, 5, 0x7fffffff, 0xfffffffc, UINT32_MAX};

    for (size_t field = 0; field < 3; field++) {
        for (size_t i = 0; i < array_len(values); i++) {
            struct bytes b = elf64(MiB(2), MiB(2), code, sizeof(code), 64, MiB(2) + 16);

            if (field == 1 && values[i] == 5) { /* longer than the address, but there */
                bytes_free(&b);
                continue;
            }
            bytes_put32(&b, 0x800 + 4 * field, values[i]);
            assert_boots(w, b);
            assert_int_equal(w->regs.entry, BOOT_LINUX64);
        }
    }
}

static void what_does_not_fit_into_low_memory_is_an_error(void **state)
{
    struct world *w = *state;

    w->in.low_end = LOW_FREE + 4096;
    assert_fails(w, fake_kernel(), "low memory");
    w->in.low_end = LOW_FREE - 1;
    assert_fails(w, fake_kernel(), "low memory");
}

/* Many kernels with some bytes wrong: each boots or is refused. */
static void damaged_files_never_crash(void **state)
{
    struct world *w = *state;
    uint8_t code[64] = {0x90};
    uint32_t seed = 1;

    w->in.kaslr = true;
    for (int i = 0; i < 1500; i++) {
        struct bytes b = i % 3 == 0   ? fake_kernel()
                         : i % 3 == 1 ? elf64(MiB(2), MiB(2), code, sizeof(code), sizeof(code), MiB(2))
                                      : elf32(MiB(2), MiB(2), code, sizeof(code), sizeof(code));
        size_t from = i % 3 == 0 ? 0x1f1 : 0, to = i % 3 == 0 ? 0x268 : 0x100;

        for (int k = 0; k < 4; k++) {
            seed = seed * 1664525 + 1013904223;
            b.p[from + seed / 65536 % (to - from)] = (uint8_t)(seed >> 8);
        }
        if (boot(w, b) < 0)
            assert_true(strlen(w->err.msg) > 10);
    }
}

/* $BOTHY_TEST_KERNELS: real ones, separated by colons, in place of all other tests. */
static void real_kernels_are_unpacked(void **state)
{
    struct world *w = *state;
    const char *names = getenv("BOTHY_TEST_KERNELS");
    const struct e820_entry map[] = {{.base = MiB(1), .size = MiB(511), .type = 1}};
    char list[4096];

    gmem_destroy(w->mem);
    assert_int_equal(gmem_create(MiB(512), GMEM_SHARED, 0, &w->mem, &w->err), 0);
    w->in.e820 = map;
    w->in.ne820 = 1;
    snprintf(list, sizeof(list), "%s", names);
    for (char *rest = list, *name; (name = strsep(&rest, ":"));) {
        gpa_t fixed;

        w->in.kernel = name;
        w->in.kaslr = false;
        assert_int_equal(gmem_discard(w->mem, 0, MiB(512)), 0);
        if (boot_load(w->mem, &w->in, &w->regs, &w->err) < 0)
            fail_msg("%s", w->err.msg);
        fixed = w->regs.rip;
        assert_int_equal(fixed % MiB(2), 0);
        w->in.kaslr = true;
        for (int i = 0; i < 4; i++) {
            uint8_t a[64], b[64];

            peek(w, fixed, a, sizeof(a));
            assert_int_equal(gmem_discard(w->mem, 0, MiB(512)), 0);
            assert_int_equal(boot_load(w->mem, &w->in, &w->regs, &w->err), 0);
            peek(w, w->regs.rip, b, sizeof(b));
            fixed = w->regs.rip;
            assert_memory_equal(a, b, 16); /* start-up code is independent of its place */
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(bzimage_is_unpacked_and_entered_in_long_mode),
        T(identity_map_covers_4_gib),
        T(gdt_is_flat_and_of_the_entry_s_width),
        T(boot_params_say_what_the_board_knows),
        T(device_tree_comes_in_setup_data),
        T(kaslr_moves_the_kernel_and_relocates_it),
        T(nokaslr_is_a_word_of_its_own),
        T(initrds_lie_one_behind_the_other_at_the_top),
        T(initrd_stays_below_what_the_kernel_allows),
        T(initrd_goes_above_4_gib_where_it_must),
        T(initrd_larger_than_ram_says_how_much_would_do),
        T(command_line_may_be_as_long_as_the_kernel_says),
        T(unknown_payload_is_left_to_the_guest),
        T(small_ram_is_told_how_much_the_kernel_needs),
        T(vmlinux_is_entered_where_it_lies),
        T(pvh_note_is_obeyed),
        T(multiboot_elf_gets_map_and_modules),
        T(multiboot_header_may_say_where_things_go),
        T(what_is_no_kernel_is_named),
        T(files_that_cannot_be_read_are_named),
        T(truncated_kernel_says_how_much_is_missing),
        T(damaged_payload_is_found),
        T(header_fields_are_checked),
        T(elf_headers_are_checked),
        T(notes_that_make_no_sense_are_no_pvh),
        T(what_does_not_fit_into_low_memory_is_an_error),
        T(damaged_files_never_crash),
    };
    const struct CMUnitTest with_kernels[] = {
        T(real_kernels_are_unpacked),
    };
#undef T

    if (getenv("BOTHY_TEST_KERNELS"))
        return cmocka_run_group_tests(with_kernels, NULL, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

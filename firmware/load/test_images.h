/* Kernels made up for tests: small, and well formed until a test spoils them. */
#pragma once
#include "firmware/load/loader.h"
#include "vmm/base/test.h"

#include <elf.h>
#include <stdio.h>
#include <unistd.h>
#include <zlib.h>

struct bytes {
    uint8_t *p;
    size_t n;
};

static inline void bytes_free(struct bytes *b)
{
    free(b->p);
    *b = (struct bytes){0};
}

/* Writes at `off`, growing with zeroes. */
static inline void bytes_put(struct bytes *b, size_t off, const void *src, size_t n)
{
    if (off + n > b->n) {
        b->p = realloc(b->p, off + n);
        assert_non_null(b->p);
        memset(b->p + b->n, 0, off + n - b->n);
        b->n = off + n;
    }
    memcpy(b->p + off, src, n);
}

static inline void bytes_put32(struct bytes *b, size_t off, uint32_t v)
{
    bytes_put(b, off, &v, sizeof(v));
}

/* An ELF file of one segment: `code` at physical `at`, then zeroes up to `memsz`; with a PVH note where `pvh` says. */
static inline struct bytes elf64(uint64_t at, uint64_t entry, const void *code, size_t n, uint64_t memsz, uint32_t pvh)
{
    struct bytes b = {0};
    const size_t code_off = 0x1000;
    const uint32_t note[] = {4, 4, 18, 0x006e6558, pvh}; /* "Xen", XEN_ELFNOTE_PHYS32_ENTRY */
    const Elf64_Ehdr eh = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
                           .e_type = ET_EXEC,
                           .e_machine = EM_X86_64,
                           .e_entry = entry,
                           .e_phoff = sizeof(eh),
                           .e_phentsize = sizeof(Elf64_Phdr),
                           .e_phnum = pvh ? 2 : 1};
    const Elf64_Phdr load = {.p_type = PT_LOAD,
                             .p_offset = code_off,
                             .p_vaddr = 0xffffffff80000000 + at,
                             .p_paddr = at,
                             .p_filesz = n,
                             .p_memsz = memsz};
    const Elf64_Phdr notes = {.p_type = PT_NOTE, .p_offset = 0x800, .p_filesz = sizeof(note), .p_memsz = sizeof(note)};

    bytes_put(&b, 0, &eh, sizeof(eh));
    bytes_put(&b, sizeof(eh), &load, sizeof(load));
    if (pvh) {
        bytes_put(&b, sizeof(eh) + sizeof(load), &notes, sizeof(notes));
        bytes_put(&b, 0x800, note, sizeof(note));
    }
    bytes_put(&b, code_off, code, n);
    return b;
}

/* The same in 32 bits. */
static inline struct bytes elf32(uint32_t at, uint32_t entry, const void *code, size_t n, uint32_t memsz)
{
    struct bytes b = {0};
    const size_t code_off = 0x1000;
    const Elf32_Ehdr eh = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS32, ELFDATA2LSB, EV_CURRENT},
                           .e_type = ET_EXEC,
                           .e_machine = EM_386,
                           .e_entry = entry,
                           .e_phoff = sizeof(eh),
                           .e_phentsize = sizeof(Elf32_Phdr),
                           .e_phnum = 1};
    const Elf32_Phdr load = {
        .p_type = PT_LOAD, .p_offset = code_off, .p_vaddr = at, .p_paddr = at, .p_filesz = n, .p_memsz = memsz};

    bytes_put(&b, 0, &eh, sizeof(eh));
    bytes_put(&b, sizeof(eh), &load, sizeof(load));
    bytes_put(&b, code_off, code, n);
    return b;
}

static inline struct bytes gzip(const void *p, size_t n)
{
    struct bytes b = {.p = malloc(n + 1024), .n = n + 1024};
    z_stream z = {.next_in = (Bytef *)p, .avail_in = (uInt)n, .next_out = b.p, .avail_out = (uInt)b.n};

    assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    b.n = z.total_out;
    deflateEnd(&z);
    return b;
}

enum {
    FAKE_PHYS = 16 << 20,
    FAKE_ENTRY = 0x40, /* into the kernel */
    FAKE_MEMSZ = 0x6000,
    FAKE_INIT_SIZE = 1 << 20,
    FAKE_CMDLINE = 100,
    FAKE_ABS32 = 0x100, /* where the kernel has what is to be relocated */
    FAKE_INVERSE = 0x203,
    FAKE_ABS64 = 0x1ffc, /* over the edge of a page */
    FAKE_SETUP_SECTS = 3,
};

static inline struct setup_header fake_header(uint32_t payload_len)
{
    return (struct setup_header){
        .setup_sects = FAKE_SETUP_SECTS,
        .syssize = (payload_len + 0x80) / 16,
        .boot_flag = 0xaa55,
        .jump = 0x6aeb,
        .header = 0x53726448,
        .version = 0x20f,
        .loadflags = LOADED_HIGH,
        .initrd_addr_max = 0x7fffffff,
        .kernel_alignment = 2 << 20,
        .relocatable_kernel = 1,
        .xloadflags = XLF_KERNEL_64 | XLF_CAN_BE_LOADED_ABOVE_4G,
        .cmdline_size = FAKE_CMDLINE,
        .payload_offset = 0x80,
        .payload_length = payload_len,
        .pref_address = FAKE_PHYS,
        .init_size = FAKE_INIT_SIZE,
    };
}

static inline struct bytes fake_bzimage(const struct setup_header *h, const void *payload)
{
    struct bytes b = {0};
    const size_t code = (FAKE_SETUP_SECTS + 1) * 512;

    bytes_put(&b, offsetof(struct boot_params, hdr), h, sizeof(*h));
    bytes_put(&b, code + h->payload_offset, payload, h->payload_length);
    bytes_put(&b, b.n, "tail of the file", 16);
    return b;
}

/* vmlinux with `n` bytes, three things in them to relocate, and the table behind it. */
static inline struct bytes fake_vmlinux_of(size_t n)
{
    uint8_t *code = malloc(n);
    struct bytes b;
    const uint32_t virt = 0x80000000 + FAKE_PHYS;
    const uint32_t table[] = {0, virt + FAKE_ABS64, 0, virt + FAKE_INVERSE, 0, virt + FAKE_ABS32};

    for (size_t i = 0; i < n; i++)
        code[i] = (uint8_t)(i * 7 + 1);
    b = elf64(FAKE_PHYS, FAKE_PHYS + FAKE_ENTRY, code, n, n + 0x3000, 0);
    bytes_put(&b, b.n, table, sizeof(table));
    free(code);
    return b;
}

static inline struct bytes fake_vmlinux(void)
{
    return fake_vmlinux_of(FAKE_MEMSZ - 0x3000);
}

static inline struct bytes fake_kernel(void)
{
    struct bytes vmlinux = fake_vmlinux(), payload = gzip(vmlinux.p, vmlinux.n), b;
    struct setup_header h = fake_header((uint32_t)payload.n);

    b = fake_bzimage(&h, payload.p);
    bytes_free(&vmlinux);
    bytes_free(&payload);
    return b;
}

/* A new file each time: some file systems write to the disk at once what replaces the contents of an old one. */
static inline void write_file(const char *path, const void *p, size_t n)
{
    FILE *f;

    unlink(path);
    f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

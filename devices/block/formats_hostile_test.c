/* Images of the formats that are read-only as disks as qemu-img does not make them: by hand, and damaged. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "devices/block/formats_rig.h"
#include "devices/block/vhdx.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/test.h"

/* ---- Made by hand: what qemu-img does not make. ---- */

enum { LOG = 1 << 20, LOG_LEN = 1 << 20, BAT = 3 << 20, PAGE = 4096 }; /* of our new VHDX images */

/* An entry of the log about the page at `off`: becomes `data`, or zeroes when that is NULL.  How long it is. */
static uint32_t log_entry(const char *path, uint32_t at, uint64_t sequence, uint64_t off, const uint8_t *data)
{
    uint32_t len = data ? 2 * PAGE : PAGE;
    uint8_t e[2 * PAGE] = "loge";

    put_le32(e + 8, len);
    put_le32(e + 12, LOG_LEN - 2 * PAGE); /* where the first entry is */
    put_le64(e + 16, sequence);
    put_le32(e + 24, 1);
    memset(e + 32, 'G', 16);
    put_le64(e + 48, fmt_size_of(path));
    put_le64(e + 56, fmt_size_of(path));
    memcpy(e + 64, data ? "desc" : "zero", 4);
    put_le64(e + 72, PAGE);
    put_le64(e + 80, off);
    put_le64(e + 88, sequence);
    if (data) {
        memcpy(e + 68, data + PAGE - 4, 4);
        memcpy(e + 72, data, 8);
        memcpy(e + PAGE, data, PAGE);
        memcpy(e + PAGE, "data", 4);
        put_le32(e + PAGE + 4, (uint32_t)(sequence >> 32));
        put_le32(e + PAGE + PAGE - 4, (uint32_t)sequence);
    }
    put_le32(e + 4, vhdx_crc(e, len, 4));
    fmt_put(path, LOG + at, e, len);
    return len;
}

/* A GUID of the newer header: 32: what the data are called, 48: the log. */
static void set_guid(const char *path, unsigned at, const char *guid)
{
    uint8_t h[PAGE];

    fmt_get(path, 128 << 10, h, sizeof(h));
    memcpy(h + at, guid, 16);
    put_le32(h + 4, vhdx_crc(h, sizeof(h), 4));
    fmt_put(path, 128 << 10, h, sizeof(h));
}

static void name_log(const char *path)
{
    set_guid(path, 48, "GGGGGGGGGGGGGGGG");
}

/* The log goes around its end; entries overwrite what earlier ones wrote. */
static void vhdx_logs_lie_over_the_file(void **s)
{
    const char *path = "c.vhdx";
    uint8_t bat[PAGE], junk[PAGE];
    struct blk *b = fmt_make(&fmt_made[4], FMT_SIZE);

    (void)s;
    fmt_write_disk(b);
    blk_close(b);
    memset(junk, 0xe6, sizeof(junk));
    fmt_get(path, BAT, bat, sizeof(bat));
    fmt_put(path, BAT, junk, sizeof(junk));
    log_entry(path, 9 * PAGE, 4, BAT, junk); /* of long ago */
    assert_int_equal(log_entry(path, LOG_LEN - 2 * PAGE, 6, BAT, junk), 2 * PAGE);
    log_entry(path, 0, 7, BAT, NULL);
    log_entry(path, PAGE, 8, BAT, bat);
    name_log(path);
    fmt_reads_as_the_disk(path, FMT_SIZE);
    fmt_get(path, BAT, bat, sizeof(bat));
    assert_memory_equal(bat, junk, sizeof(bat)); /* nothing was written */
    if (!fmt_run("command -v qemu-img"))
        fmt_run_ok("qemu-img check -r all %s && qemu-img compare src.raw %s", path, path);
    fmt_run_ok("rm %s", path);
}

static void damaged_vhdx_logs_are_refused(void **s)
{
    const char *path = "c.vhdx";
    uint8_t junk[PAGE] = {1};

    (void)s;
    blk_close(fmt_make(&fmt_made[4], FMT_SIZE));
    name_log(path);
    fmt_refused(path, &fmt_reading, "the log is damaged");
    log_entry(path, LOG_LEN - 2 * PAGE, 6, BAT + 1, junk);
    fmt_refused(path, &fmt_reading, "log is damaged");
    log_entry(path, LOG_LEN - 2 * PAGE, 6, UINT64_MAX - PAGE + 1, junk);
    fmt_refused(path, &fmt_reading, "log is damaged");
    log_entry(path, LOG_LEN - 2 * PAGE, 6, BAT, junk);
    fmt_put(path, LOG + LOG_LEN - PAGE + 500, "x", 1);
    fmt_refused(path, &fmt_reading, "log is damaged");
    fmt_run_ok("rm %s", path);
}

enum { METADATA = 2 << 20, LOCATOR = (64 << 10) + PAGE, KEYS = 3 };

static const char parent_guid[] = "\xc3\x0e\xed\x83\xc8\x24\xa6\x49\xa9\x59\x5e\x4b\xf1\x28\x8b\xfb";
#define PARENT_GUID "{83ed0ec3-24c8-49a6-a959-5e4bf1288bfb}"

struct locator { /* keys and values */
    const char *text[2 * KEYS];
};

static const struct locator relative = {{"parent_linkage", PARENT_GUID, "relative_path", ".\\parent.vhdx"}};

/* The image has a parent [MS-VHDX 2.6.2.6]. */
static void set_locator(const char *path, const struct locator *l)
{
    static const uint8_t type[] = "\xb7\xef\x4a\xb0\x9e\xd1\x81\x4a\xb7\x89\x25\xb8\xe9\x44\x59\x13";
    uint8_t item[PAGE] = {0}, count[2] = {6}, flags[4] = {2};
    uint8_t entry[32] = "\x2d\x5f\xd3\xa8\x0b\xb3\x4d\x45\xab\xf7\xd3\xd8\x48\x34\xab\x0c";
    uint32_t end = 20 + KEYS * 12;

    memcpy(item, type, 16);
    for (unsigned i = 0; i < 2 * KEYS && l->text[i]; i++) {
        uint8_t *e = item + 20 + i / 2 * 12;

        put_le16(item + 18, (uint16_t)(i / 2 + 1));
        put_le32(e + i % 2 * 4, end);
        put_le16(e + 8 + i % 2 * 2, (uint16_t)(2 * strlen(l->text[i])));
        for (const char *c = l->text[i]; *c; c++, end += 2)
            item[end] = (uint8_t)*c;
    }
    put_le32(entry + 16, LOCATOR);
    put_le32(entry + 20, end);
    put_le32(entry + 24, 4);
    fmt_put(path, METADATA + LOCATOR, item, sizeof(item));
    fmt_put(path, METADATA + 32 + 5 * 32, entry, sizeof(entry)); /* after the five that are there */
    fmt_put(path, METADATA + 10, count, sizeof(count));
    fmt_put(path, METADATA + (64 << 10) + 4, flags, sizeof(flags));
}

/* The word of the table for block `n`; of chunk `n`'s bitmap.  A chunk is 4 GiB, of 4096 blocks. */
static uint64_t bat_of(uint64_t n)
{
    return BAT + (n + n / 4096) * 8;
}
static uint64_t bat_of_bitmap(uint64_t n)
{
    return BAT + (n * 4097 + 4096) * 8;
}

static void set_word(const char *path, uint64_t off, uint64_t place, unsigned state)
{
    uint8_t raw[8];

    put_le64(raw, place | state);
    fmt_put(path, off, raw, sizeof(raw));
}

/* A block that is there becomes one that is there in part. */
static void make_partial(const char *path, uint64_t n)
{
    uint8_t raw[8];

    fmt_get(path, bat_of(n), raw, sizeof(raw));
    assert_int_equal(raw[0], 6);
    raw[0] = 7;
    fmt_put(path, bat_of(n), raw, sizeof(raw));
}

/*
 * parent.vhdx is the disk; child.vhdx has block 1, of block 2 sectors 1 and 9 to 20, zeroes as block 3 and 5, and of
 * block 4097, beyond the parent, sector 0.  `want`: its first 6 MiB.
 */
static void make_vhdx_family(uint8_t *want)
{
    const char *path = "child.vhdx";
    struct blk *b = fmt_make(&(struct fmt_made){"vhdx", "block_size=1M", "parent.vhdx", "vhdx"}, FMT_SIZE);
    cleanup_free uint8_t *data = malloc(MiB(1));
    uint64_t end;

    fmt_write_disk(b);
    blk_close(b);
    set_guid("parent.vhdx", 32, parent_guid);
    memset(data, 'c', MiB(1));
    memcpy(want, fmt_disk, MiB(6));
    b = fmt_make(&(struct fmt_made){"vhdx", "block_size=1M", path, "vhdx"}, GiB(4) + MiB(3));
    assert_int_equal(blk_pwrite(b, data, MiB(1), MiB(1)) | blk_pwrite(b, data, MiB(1), MiB(2)), 0);
    assert_int_equal(blk_pwrite(b, data, MiB(1), GiB(4) + MiB(1)) | blk_flush(b), 0);
    blk_close(b);
    set_locator(path, &relative);
    make_partial(path, 2);
    make_partial(path, 4097);
    set_word(path, bat_of(3), 0, 2);
    set_word(path, bat_of(5), 0, 3);
    end = fmt_size_of(path);
    assert_int_equal(end % MiB(1), 0);
    set_word(path, bat_of_bitmap(0), end, 6);
    set_word(path, bat_of_bitmap(1), end + MiB(1), 6);
    fmt_put(path, end + 2 * 2048 / 8, "\x02\xfe\x1f", 3);
    fmt_put(path, end + MiB(1) + 2048 / 8, "\x01", 1);
    fmt_put(path, end + MiB(2) - 1, "", 1);
    memset(want + MiB(1), 'c', MiB(1));
    memset(want + MiB(2) + 512, 'c', 512);
    memset(want + MiB(2) + 9 * 512, 'c', 12 * 512);
    memset(want + MiB(3), 0, MiB(1));
    memset(want + MiB(5), 0, MiB(1));
}

static void reads_as_the_child(const char *path, const uint8_t *want)
{
    struct blk *b = fmt_open(path, &fmt_reading);
    cleanup_free uint8_t *got = malloc(MiB(6));
    uint8_t edge[1024] = {0};

    assert_int_equal(b->lim.size, GiB(4) + MiB(3));
    assert_int_equal(blk_pread(b, got, MiB(6), 0), 0);
    assert_memory_equal(got, want, MiB(6));
    for (uint64_t at = MiB(2); at < MiB(2) + 30 * 512; at += 100) {
        assert_int_equal(blk_pread(b, got, 1111, at), 0);
        assert_memory_equal(got, want + at, 1111);
    }
    memcpy(edge, fmt_disk + FMT_SIZE - 512, 512);
    assert_int_equal(blk_pread(b, got, 1024, FMT_SIZE - 512), 0); /* the parent ends there */
    assert_memory_equal(got, edge, 1024);
    memset(edge, 'c', 512);
    assert_int_equal(blk_pread(b, got, 1024, GiB(4) + MiB(1)), 0);
    assert_memory_equal(got, edge, 1024);
    blk_close(b);
}

static void vhdx_children_read_through_to_their_parent(void **s)
{
    static const struct {
        struct locator l;
        const char *word; /* of the refusal; NULL: it is opened */
    } rows[] = {
        {{{"parent_linkage", "{83ED0EC3-24C8-49A6-A959-5E4BF1288BFB}", "volume_path",
           "\\\\?\\Volume{26A21BDA-A627-11D7-9931-806E6F6E6963}\\x\\parent.vhdx"}},
         NULL},
        {{{"absolute_win32_path", "\\\\?\\d:\\x\\parent.vhdx", "parent_linkage", "{}", "parent_linkage2", PARENT_GUID}},
         NULL},
        {{{"parent_linkage", "{83ed0ec3-24c8-49a6-a959-5e4bf1288bfc}", "relative_path", "parent.vhdx"}},
         "written to since"},
        {{{"relative_path", "parent.vhdx"}}, "what its parent calls itself"},
        {{{"parent_linkage", PARENT_GUID}}, "does not name its parent"},
        {{{"parent_linkage", PARENT_GUID, "relative_path", "child.vhdx"}}, "itself"},
        {{{"parent_linkage", PARENT_GUID, "relative_path", "..\\..\\..\\etc\\passwd"}}, "allow="},
        {{{"parent_linkage", PARENT_GUID, "relative_path", "\\\\server\\share"}}, "No such file"},
        {{{"parent_linkage", PARENT_GUID, "relative_path", "gone.vhdx"}}, "No such file"},
    };
    cleanup_free uint8_t *want = malloc(MiB(6));

    (void)s;
    make_vhdx_family(want);
    reads_as_the_child("child.vhdx", want);
    fmt_names_backing("child.vhdx", "./parent.vhdx");
    blk_close(fmt_make(&(struct fmt_made){"qcow2", "backing_file=child.vhdx,backing_fmt=vhdx", "over.qcow2", "qcow2"},
                       GiB(4) + MiB(3)));
    reads_as_the_child("over.qcow2", want);
    for (size_t i = 0; i < array_len(rows); i++) {
        set_locator("child.vhdx", &rows[i].l);
        if (rows[i].word)
            fmt_refused("child.vhdx", &fmt_reading, rows[i].word);
        else
            reads_as_the_child("child.vhdx", want);
    }
    fmt_put("child.vhdx", METADATA + LOCATOR, "x", 1);
    fmt_refused("child.vhdx", &fmt_reading, "something else than a VHDX image");
    fmt_run_ok("rm child.vhdx parent.vhdx over.qcow2");
}

static uint64_t corruptions_of(const char *path)
{
    struct blk *b = fmt_open(path, &(struct blk_open_opts){.read_only = true, .no_backing = true});
    struct blk_check found;
    struct err err;

    if (b->drv->check(b, BLK_FIX_NONE, &found, &err))
        fail_msg("%s", err.msg);
    blk_close(b);
    return found.corruptions;
}

static void bitmaps_of_vhdx_children_are_checked(void **s)
{
    const char *path = "child.vhdx";
    cleanup_free uint8_t *want = malloc(MiB(6));
    uint8_t buf[512], place[8];
    struct blk *b;

    (void)s;
    make_vhdx_family(want);
    assert_int_equal(corruptions_of(path), 0);
    fmt_get(path, bat_of_bitmap(0), place, sizeof(place));
    set_word(path, bat_of_bitmap(1), align_down(get_le64(place), MiB(1)), 6); /* both the same */
    assert_int_equal(corruptions_of(path), 1);
    set_word(path, bat_of_bitmap(1), 1ull << 63, 6);
    assert_int_equal(corruptions_of(path), 1);
    set_word(path, bat_of_bitmap(1), 0, 0);
    b = fmt_open(path, &fmt_reading);
    assert_int_equal(blk_pread(b, buf, sizeof(buf), GiB(4) + MiB(1)), -EIO);
    blk_close(b);
    fmt_run_ok("rm child.vhdx parent.vhdx");
}

static void damaged_locators_do_no_harm(void **s)
{
    cleanup_free uint8_t *want = malloc(MiB(6));
    struct err err;

    (void)s;
    make_vhdx_family(want);
    for (unsigned i = 0; i < 200 * 8; i += 3) {
        uint8_t was, byte;
        struct blk *b;

        fmt_get("child.vhdx", METADATA + LOCATOR + i / 8, &was, 1);
        byte = was ^ (uint8_t)(1 << i % 8);
        fmt_put("child.vhdx", METADATA + LOCATOR + i / 8, &byte, 1);
        if (!blk_open("child.vhdx", &fmt_reading, NULL, NULL, &b, &err))
            blk_close(b);
        fmt_put("child.vhdx", METADATA + LOCATOR + i / 8, &was, 1);
    }
    fmt_run_ok("rm child.vhdx parent.vhdx");
}

static void sum_footer(uint8_t *f)
{
    uint32_t sum = 0;

    put_be32(f + 64, 0);
    for (unsigned i = 0; i < 512; i++)
        sum += f[i];
    put_be32(f + 64, ~sum);
}

/* The child has sectors 1 and 9 of the first block, marked as such, and another block as a whole. */
static void make_vhd_child(const char *name)
{
    static const char le[] = ".\0\\\0a\0.\0v\0h\0d\0", be[] = "\0C\0:\0\\\0a\0.\0v\0h\0d\0";
    struct blk *b = fmt_make(&(struct fmt_made){"vhd", "", "child.vhd", "vpc"}, FMT_SIZE);
    uint8_t foot[512], head[1024], bits[512] = {0x40, 0x40};
    uint8_t data[1024];

    memset(data, 'c', sizeof(data));
    assert_int_equal(blk_pwrite(b, data, 512, 512), 0);
    assert_int_equal(blk_pwrite(b, data, 512, 9 * 512), 0);
    assert_int_equal(blk_pwrite(b, data, 1024, MiB(2)), 0);
    assert_int_equal(blk_flush(b), 0);
    blk_close(b);
    fmt_get("a.vhd", 0, foot, sizeof(foot));
    fmt_get("child.vhd", 512, head, sizeof(head));
    memcpy(head + 40, foot + 68, 16);
    if (!strcmp(name, "locator")) {
        memcpy(head + 576, "W2ru", 4);
        put_be32(head + 576 + 8, sizeof(le) - 1);
        put_be64(head + 576 + 16, fmt_size_of("child.vhd"));
    } else {
        memcpy(head + 64, be, sizeof(be));
    }
    fmt_put("child.vhd", 512, head, sizeof(head));
    fmt_put("child.vhd", 2048, bits, sizeof(bits)); /* right after the table, which is one sector */
    fmt_get("child.vhd", 0, foot, sizeof(foot));
    put_be32(foot + 60, 4);
    sum_footer(foot);
    fmt_put("child.vhd", 0, foot, sizeof(foot));
    fmt_put("child.vhd", fmt_size_of("child.vhd"), le, sizeof(le) - 1);
    fmt_put("child.vhd", align_up(fmt_size_of("child.vhd"), 512), foot, sizeof(foot));
}

static void vhd_children_read_through_to_their_parent(void **s)
{
    static const char *const ways[] = {"locator", "name"};
    struct blk *b = fmt_make(&(struct fmt_made){"vhd", "", "a.vhd", "vpc"}, FMT_SIZE);
    uint8_t want[16 << 10], got[16 << 10];

    (void)s;
    fmt_write_disk(b);
    blk_close(b);
    for (size_t i = 0; i < array_len(ways); i++) {
        make_vhd_child(ways[i]);
        b = fmt_open("child.vhd", &fmt_reading);
        memcpy(want, fmt_disk, sizeof(want));
        memset(want + 512, 'c', 512);
        memset(want + 9 * 512, 'c', 512);
        assert_int_equal(blk_pread(b, got, sizeof(got), 0), 0);
        assert_memory_equal(got, want, sizeof(got));
        memset(want, 0, 2048);
        memset(want, 'c', 1024);
        assert_int_equal(blk_pread(b, got, 2048, MiB(2)), 0);
        assert_memory_equal(got, want, 2048);
        assert_int_equal(blk_pread(b, got, 2048, MiB(33)), 0);
        assert_memory_equal(got, fmt_disk + MiB(33), 2048);
        blk_close(b);
    }
    fmt_run_ok("cp child.vhd a.vhd");
    fmt_refused("child.vhd", &fmt_reading, "itself or an image above it");
    fmt_run_ok("rm a.vhd child.vhd");
}

static void bochs_images_are_read(void **s)
{
    enum { EXTENT = 65536, EXTENTS = FMT_SIZE / EXTENT + 1, DATA = 512 + EXTENTS * 4 };
    uint8_t h[512] = "Bochs Virtual HD Image", bits[512], entry[4];
    uint32_t used = 0;

    (void)s;
    strcpy((char *)h + 32, "Redolog");
    strcpy((char *)h + 48, "Growing");
    put_le32(h + 64, 0x20000);
    put_le32(h + 68, 512);
    put_le32(h + 72, EXTENTS);
    put_le32(h + 76, EXTENT / 512 / 8);
    put_le32(h + 80, EXTENT);
    put_le64(h + 88, FMT_SIZE);
    fmt_put("a.bochs", 0, h, sizeof(h));
    for (uint32_t i = 0; i < EXTENTS; i++) {
        uint64_t start = (uint64_t)i * EXTENT, n = min_u64(EXTENT, FMT_SIZE - start),
                 place = DATA + used * (EXTENT + 512ull);

        put_le32(entry, fmt_is_zero(fmt_disk + start, n) ? UINT32_MAX : used++);
        fmt_put("a.bochs", 512 + i * 4ull, entry, sizeof(entry));
        if (get_le32(entry) == UINT32_MAX)
            continue;
        memset(bits, 0, sizeof(bits));
        for (unsigned k = 0; k < n / 512; k++)
            if (!fmt_is_zero(fmt_disk + start + k * 512, 512)) {
                bits[k / 8] |= (uint8_t)(1 << k % 8);
                fmt_put("a.bochs", place + 512 + k * 512ull, fmt_disk + start + k * 512, 512);
            }
        fmt_put("a.bochs", place, bits, sizeof(bits));
    }
    fmt_reads_as_the_disk("a.bochs", FMT_SIZE);
    if (!fmt_run("command -v qemu-img"))
        fmt_run_ok("qemu-img compare -F bochs src.raw a.bochs");
    fmt_put("a.bochs", 48, "Volatile", 9);
    fmt_refused("a.bochs", &fmt_reading, "bximage");
    fmt_run_ok("rm a.bochs");
}

/* Streams name their directory in a footer, which follows the last grain. */
static void vmdk_streams_may_end_in_a_footer(void **s)
{
    const char *path = "b.vmdk";
    struct blk *b = fmt_make(&fmt_made[9], FMT_SIZE);
    uint8_t h[512], marker[512] = {0};
    uint64_t at;

    (void)s;
    fmt_write_disk(b);
    blk_close(b);
    fmt_get(path, 0, h, sizeof(h));
    put_le64(marker, 1);
    put_le32(marker + 12, 3);
    at = fmt_size_of(path);
    fmt_put(path, at, marker, sizeof(marker));
    fmt_put(path, at + 512, h, sizeof(h));
    memset(marker, 0, sizeof(marker));
    fmt_put(path, at + 1024, marker, sizeof(marker));
    memset(h + 56, 0xff, 8);
    fmt_put(path, 0, h, sizeof(h));
    fmt_reads_as_the_disk(path, FMT_SIZE);
    if (!fmt_run("command -v qemu-img"))
        fmt_run_ok("qemu-img compare src.raw %s", path);
    fmt_put(path, at + 512, marker, sizeof(marker));
    fmt_refused(path, &fmt_reading, "no signature");
    fmt_run_ok("rm %s", path);
}

static void describe(const char *extents)
{
    cleanup_fd int fd = open("t.vmdk", O_CREAT | O_TRUNC | O_WRONLY, 0600);

    assert_true(fd >= 0);
    dprintf(fd, "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType=\"custom\"\n%s\n",
            extents);
}

static void vmdk_extents_lie_side_by_side(void **s)
{
    uint8_t buf[2048], want[2048];
    struct blk *b;

    (void)s;
    describe("RW 2 ZERO\nRW 3 FLAT \"src.raw\" 2\nRW 1 FLAT \"src.raw\" 0\r\nRDONLY 2 ZERO");
    b = fmt_open("t.vmdk", &fmt_reading);
    assert_int_equal(b->lim.size, 8 * 512);
    memset(want, 0, sizeof(want));
    memcpy(want + 100, fmt_disk + 1024, 1536);
    memcpy(want + 100 + 1536, fmt_disk, 412);
    assert_int_equal(blk_pread(b, buf, sizeof(buf), 1024 - 100), 0);
    assert_memory_equal(buf, want, sizeof(buf));
    blk_close(b);
}

static void what_a_descriptor_may_not_say(void **s)
{
    static const struct {
        const char *text, *word;
    } rows[] = {
        {"", "lists no extent"},
        {"RW x FLAT \"src.raw\" 0", "not understood"},
        {"RW 1 FLAT", "without a name"},
        {"RW 0 FLAT \"src.raw\" 0", "0 sectors"},
        {"RW 99999999 FLAT \"src.raw\" 0", "cut short"},
        {"RW 1 FLAT \"src.raw\" 99999999", "cut short"},
        {"RW 99999999999999999999 ZERO", "sectors"},
        {"RW 9007199254740992 ZERO\nRW 18014398509481983 ZERO", "too long together"},
        {"RW 1 VMFSSPARSE \"src.raw\"", "VMFSSPARSE"},
        {"RW 1 SPARSE \"src.raw\"", "no signature"},
        {"RW 1 SPARSE \"t.vmdk\"", "itself"},
        {"RW 1 FLAT \"/etc/passwd\" 0", "allow="},
        {"RW 1 FLAT \"../../../etc/passwd\" 0", "allow="},
        {"RW 1 FLAT \"json:{}\" 0", "no protocols"},
        {"RW 1 FLAT \"nbd://localhost\" 0", "no protocols"},
        {"RW 1 FLAT \"/proc/self/mem\" 0", "outside of its own folder"},
        {"RW 1 ZERO\nparentFileNameHint=\"/etc/passwd\"", "allow="},
        {"RW 1 ZERO\nparentFileNameHint=\"t.vmdk\"", "itself"},
        {"RW 1 ZERO \a", "no text"},
    };

    (void)s;
    for (size_t i = 0; i < array_len(rows); i++) {
        describe(rows[i].text);
        fmt_refused("t.vmdk", &fmt_reading, rows[i].word);
    }
}

static void damaged_headers_are_refused(void **s)
{
    static const struct {
        unsigned made;
        uint32_t off, value, len;
        const char *word;
    } rows[] = {
        {0, 64, 0, 4, "no signature"},
        {0, 68, 0x10002, 4, "version"},
        {0, 76, 4, 4, "difference"},
        {0, 76, 9, 4, "type 9"},
        {0, 340, 0, 4, "map at 0"},
        {0, 340, 0xffffff00, 4, "map at"},
        {0, 344, 513, 4, "data at 513"},
        {0, 344, 0xfffffe00, 4, "data at"},
        {0, 360, 4096, 4, "sectors of 4096"},
        {0, 368, 0, 4, "0 bytes"},
        {0, 372, 0x7fffffff, 4, "blocks for a disk"},
        {0, 376, 0, 4, "blocks of 0"},
        {0, 376, 0x80000000, 4, "blocks of"},
        {0, 376, 3 << 20, 4, "blocks of"},
        {0, 384, 0xffffffff, 4, "blocks for a disk"},
        {2, 0, 0, 8, "no signature"},
        {2, 128 << 10, 0, 4, NULL}, /* the other header has it all */
        {2, 192 << 10, 0, 4, NULL}, /* and so the other table */
        {2, 2 << 20, 0, 4, "metadata is not valid"},
        {2, (2 << 20) + 32 + 16, 0, 4, "an item"},
        {2, (2 << 20) + 32 + 16, 0xfffffff0, 4, "an item"},
        {2, (2 << 20) + 32, 0, 4, "item of metadata that must be known"},
        {2, (2 << 20) + (64 << 10), 0, 4, "blocks of 0"},
        {2, (2 << 20) + (64 << 10), 3 << 20, 4, "blocks of"},
        {2, (2 << 20) + (64 << 10) + 4, 2, 4, "does not name its parent"},
        {2, (2 << 20) + (64 << 10) + 16, 1, 4, "a disk of"},
        {2, (2 << 20) + (64 << 10) + 20, 0xffffffff, 4, "a disk of"},
        {2, (2 << 20) + (64 << 10) + 48, 1000, 4, "sectors of 1000"},
        {6, 16, 0, 4, NULL}, /* the footer has it all */
        {6, 512, 0, 4, "header is not where"},
        {6, 512 + 24, 0, 4, "version"},
        {6, 512 + 16, 0xffffffff, 4, "cut short"},
        {6, 512 + 28, 0, 4, "0 blocks for"},
        {6, 512 + 28, 0xffffffff, 4, "cut short"},
        {6, 512 + 32, 0, 4, "blocks of 0"},
        {8, 0, 0, 4, "no signature"},
        {8, 4, 9, 4, "version 9"},
        {8, 12, 0, 4, "0 sectors"},
        {8, 16, 0x7fffffff, 4, "sectors"},
        {8, 20, 0, 4, "grains of 0"},
        {8, 20, 0x10000, 4, "grains of"},
        {8, 24, 1, 4, "grains of"},
        {8, 28, 0x7fffffff, 4, "a descriptor of"},
        {8, 44, 0, 4, "0 to a table"},
        {8, 44, 1 << 20, 4, "to a table"},
        {8, 56, 0x7fffffff, 4, "directory"},
        {8, 60, 0x7fffffff, 4, "directory"},
        {9, 77, 2, 2, "compression 2"},
    };

    (void)s;
    for (size_t i = 0; i < array_len(rows); i++) {
        const struct fmt_made *m = &fmt_made[rows[i].made];
        const struct blk_open_opts o = {.format = m->driver, .read_only = true};
        uint8_t value[8] = {0};

        blk_close(fmt_make(m, MiB(3)));
        put_le32(value, rows[i].value);
        fmt_put(m->path, rows[i].off, value, rows[i].len);
        if (rows[i].word)
            fmt_refused(m->path, &o, rows[i].word);
        else
            blk_close(fmt_open(m->path, &o));
        fmt_run_ok("rm %s", m->path);
    }
}

/* Read as far as it can be; what comes of that is not looked at, but sanitizers look. */
static void read_damaged(const struct fmt_made *m)
{
    uint8_t buf[4096];
    struct blk_status st;
    struct blk *b;
    struct err err;

    if (blk_open(m->path, &(struct blk_open_opts){.format = m->driver, .read_only = true}, NULL, NULL, &b, &err))
        return;
    for (uint64_t at = 0; at < b->lim.size && at < MiB(3); at += 256 << 10)
        if (blk_pread(b, buf, min_u64(sizeof(buf), b->lim.size - at), at) || b->drv->status(b, at, 512, &st))
            continue;
    blk_close(b);
}

static void flipped_bits_do_no_harm(void **s)
{
    uint32_t x = 7;

    (void)s;
    for (unsigned i = 0; i < FMT_MADE; i++) {
        struct blk *b = fmt_make(&fmt_made[i], MiB(3));
        uint64_t end;

        assert_int_equal(blk_pwrite(b, fmt_disk, MiB(2), 0), 0);
        assert_int_equal(blk_flush(b), 0);
        blk_close(b);
        end = fmt_size_of(fmt_made[i].path);
        for (unsigned n = 0; n < 100; n++) {
            uint64_t places[] = {x % 512, x % (128 << 10), x % end, end - 1 - x % 512};
            uint8_t byte, was;

            x = x * 1103515245 + 12345;
            fmt_get(fmt_made[i].path, places[n % 4], &was, 1);
            byte = was ^ (uint8_t)(1 << (x >> 20) % 8);
            fmt_put(fmt_made[i].path, places[n % 4], &byte, 1);
            read_damaged(&fmt_made[i]);
            fmt_put(fmt_made[i].path, places[n % 4], &was, 1);
        }
        fmt_run_ok("rm %s", fmt_made[i].path);
    }
}

/* Whatever is beyond the end is an error, not zeroes, and neither hangs nor crashes. */
static void what_was_cut_off_is_not_zero(void **s)
{
    uint8_t buf[4096];

    (void)s;
    memset(buf, 'x', sizeof(buf));
    for (unsigned i = 0; i < FMT_MADE; i++) {
        struct blk *b = fmt_make(&fmt_made[i], MiB(24));

        assert_int_equal(blk_pwrite(b, buf, sizeof(buf), MiB(1)), 0);
        assert_int_equal(blk_pwrite(b, buf, sizeof(buf), MiB(20)), 0);
        assert_int_equal(blk_flush(b), 0);
        blk_close(b);
        if (!strcmp(fmt_made[i].options, "subformat=fixed,force_size"))
            continue; /* without its footer that is no image any more */
        fmt_run_ok("truncate -s -%u %s", strcmp(fmt_made[i].path, "b.vmdk") != 0 ? 66000 : 1024, fmt_made[i].path);
        b = fmt_open(fmt_made[i].path, &(struct blk_open_opts){.format = fmt_made[i].driver, .read_only = true});
        assert_int_equal(blk_pread(b, buf, 100, MiB(1)), 0);
        if (!strcmp(fmt_made[i].path, "a.vmdk") || !strcmp(fmt_made[i].path, "b.vmdk"))
            assert_int_equal(blk_pread(b, buf, 100, MiB(20)), -EIO);
        blk_close(b);
        fmt_run_ok("rm %s", fmt_made[i].path);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vhdx_logs_lie_over_the_file),
        cmocka_unit_test(damaged_vhdx_logs_are_refused),
        cmocka_unit_test(vhdx_children_read_through_to_their_parent),
        cmocka_unit_test(bitmaps_of_vhdx_children_are_checked),
        cmocka_unit_test(damaged_locators_do_no_harm),
        cmocka_unit_test(vhd_children_read_through_to_their_parent),
        cmocka_unit_test(bochs_images_are_read),
        cmocka_unit_test(vmdk_streams_may_end_in_a_footer),
        cmocka_unit_test(vmdk_extents_lie_side_by_side),
        cmocka_unit_test(what_a_descriptor_may_not_say),
        cmocka_unit_test(damaged_headers_are_refused),
        cmocka_unit_test(flipped_bits_do_no_harm),
        cmocka_unit_test(what_was_cut_off_is_not_zero),
    };

    return cmocka_run_group_tests(tests, fmt_setup, fmt_teardown);
}

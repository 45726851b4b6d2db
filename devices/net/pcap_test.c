#include <fcntl.h>
#include <linux/if_ether.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "devices/net/pcap.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/test.h"

enum { FILE_HEADER = 24, RECORD = 16 };

static uint8_t frame[NET_FRAME_MAX], got[4 << 20];
static char path[64];

static void add(struct pcap *p, size_t len, bool checksum)
{
    struct iovec iov[] = {{frame, len / 3}, {frame + len / 3, len - len / 3}};
    struct net_frame f = {.iov = iov, .niov = 2, .len = len};

    if (checksum)
        f.hdr = (struct virtio_net_hdr_v1){
            .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = htole16(34), .csum_offset = htole16(6)};
    pcap_hold(p, &f);
    pcap_hold(p, &f); /* the first time there was no room at the other end */
    pcap_write(p);
}

static int with_file(void **s)
{
    int fd = memfd_create("pcap", 0);

    for (size_t i = 0; i < sizeof(frame); i++)
        frame[i] = (uint8_t)(i * 3 + i / 256);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    *s = (void *)(intptr_t)fd;
    return 0;
}

static int close_file(void **s)
{
    return close((int)(intptr_t)*s);
}

static struct pcap *open_pcap(uint32_t snap, uint64_t limit)
{
    struct pcap *p;
    struct err err;

    if (pcap_create(path, snap, limit, &p, &err))
        fail_msg("%s", err.msg);
    return p;
}

/* The record at `off`: its captured bytes are the frame's; where the next is. */
static size_t expect_record(size_t off, size_t captured, size_t len)
{
    assert_int_equal(get_le32(got + off + 8), captured);
    assert_int_equal(get_le32(got + off + 12), len);
    assert_in_range(get_le32(got + off + 4), 0, 999999999);
    assert_memory_equal(got + off + RECORD, frame, captured);
    return off + RECORD + captured;
}

static void frames_are_in_the_file(void **s)
{
    struct pcap *p = open_pcap(0, 0);
    size_t off = FILE_HEADER;

    add(p, 60, false);
    add(p, NET_FRAME_MAX, false);
    pcap_destroy(p);
    assert_int_equal(pread((int)(intptr_t)*s, got, sizeof(got), 0), FILE_HEADER + 2 * RECORD + 60 + NET_FRAME_MAX);
    assert_int_equal(get_le32(got), 0xa1b23c4d);
    assert_int_equal(get_le32(got + 20), 1);
    off = expect_record(off, 60, 60);
    expect_record(off, NET_FRAME_MAX, NET_FRAME_MAX);
}

static void frames_are_cut_and_the_capture_ends(void **s)
{
    struct pcap *p = open_pcap(40, FILE_HEADER + 2 * (RECORD + 40));
    size_t off = FILE_HEADER;

    add(p, 100, false);
    add(p, 200, false);
    add(p, 20, false);
    assert_int_equal(pcap_missed(p), 1);
    pcap_destroy(p);
    assert_int_equal(pread((int)(intptr_t)*s, got, sizeof(got), 0), FILE_HEADER + 2 * (RECORD + 40));
    off = expect_record(off, 40, 100);
    expect_record(off, 40, 200);
}

static void checksums_that_are_left_to_do_are_right_in_it(void **s)
{
    struct pcap *p = open_pcap(0, 0);
    unsigned sum = 0;

    put_be16(frame + 40, 0x1234); /* the sum of what is not in the packet */
    add(p, 60, true);
    pcap_destroy(p);
    assert_int_equal(pread((int)(intptr_t)*s, got, sizeof(got), 0), FILE_HEADER + RECORD + 60);
    for (unsigned i = 34; i < 60; i += 2)
        sum += get_be16(got + FILE_HEADER + RECORD + i);
    sum += 0x1234;
    assert_int_equal(sum % 0xffff, 0);
}

static void who_reads_slowly_misses_whole_frames(void **s)
{
    char dir[] = "/tmp/bothy-pcap.XXXXXX";
    unsigned frames = 0;
    struct pcap *p;
    size_t len = 0;
    ssize_t n;
    int fd;

    (void)s;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/fifo", dir);
    assert_int_equal(mkfifo(path, 0600), 0);
    p = open_pcap(0, 0);
    for (unsigned i = 0; i < 300; i++)
        add(p, 60000, false);
    assert_in_range(pcap_missed(p), 1, 299);
    fd = open(path, O_RDONLY | O_NONBLOCK);
    while ((n = read(fd, got + len, sizeof(got) - len)) > 0) {
        len += (size_t)n;
        if (!frames++) /* what was begun is finished before anything else */
            add(p, 60, false);
    }
    for (size_t off = FILE_HEADER; off < len; off += RECORD + get_le32(got + off + 8)) {
        assert_true(off + RECORD <= len);
        expect_record(off, get_le32(got + off + 8), get_le32(got + off + 12));
    }
    pcap_destroy(p);
    close(fd);
    unlink(path);
    rmdir(dir);
}

static void a_file_that_cannot_be_is_refused(void **s)
{
    struct pcap *p;
    struct err err;

    (void)s;
    assert_int_equal(pcap_create("/nowhere/x.pcap", 0, 0, &p, &err), -ENOENT);
    assert_non_null(strstr(err.msg, "/nowhere/x.pcap"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(frames_are_in_the_file, with_file, close_file),
        cmocka_unit_test_setup_teardown(frames_are_cut_and_the_capture_ends, with_file, close_file),
        cmocka_unit_test_setup_teardown(checksums_that_are_left_to_do_are_right_in_it, with_file, close_file),
        cmocka_unit_test(who_reads_slowly_misses_whole_frames),
        cmocka_unit_test(a_file_that_cannot_be_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

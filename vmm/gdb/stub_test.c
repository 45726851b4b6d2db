#include "vmm/gdb/stub.h"

#include <stdio.h>

#include "vmm/base/test.h"
#include "vmm/gdb/fake_guest.h"
#include "vmm/gdb/regs.h"

struct world {
    struct fake_guest g;
    struct gdb_stub stub;
    struct gdb_reply reply;
    enum gdb_wish wish;
};

static int setup(void **s)
{
    struct world *w = xcalloc(1, sizeof(*w));

    fake_guest_init(&w->g);
    gdb_stub_init(&w->stub, &w->g.guest);
    *s = w;
    return 0;
}

static int teardown(void **s)
{
    struct world *w = *s;

    gdb_stub_fini(&w->stub);
    assert_true(fake_guest_is_clean(&w->g));
    fake_guest_fini(&w->g);
    free(w);
    return 0;
}

static const char *ask(struct world *w, const char *packet)
{
    w->wish = gdb_stub_packet(&w->stub, packet, strlen(packet), &w->reply);
    assert_true(w->reply.n < GDB_PACKET_MAX);
    w->reply.payload[w->reply.n] = 0;
    return w->reply.payload;
}

static void registers_have_gdbs_order(void **s)
{
    struct world *w = *s;
    char all[2 * GDB_REGS_BYTES + 2] = "G";

    w->g.cpus[0].gpr[1] = 0x1122334455667788;
    w->g.cpus[0].selector[CPU_GS] = 0x1234;
    w->g.cpus[0].efer = 0xd01;
    w->g.cpus[0].ftw = 0x81;
    assert_int_equal(strlen(ask(w, "g")), 2 * GDB_REGS_BYTES);
    memcpy(all + 1, w->reply.payload, 2 * GDB_REGS_BYTES);
    assert_memory_equal(all + 1 + 16, "8877665544332211", 16);
    assert_memory_equal(all + 1 + 2 * (16 * 8 + 8 + 4 + 5 * 4), "34120000", 8);
    assert_string_equal(ask(w, "p1"), "8877665544332211");
    assert_string_equal(ask(w, "p22"), "fc3f0000");
    assert_string_equal(ask(w, "p41"), "010d000000000000");
    assert_string_equal(ask(w, "p42"), "E16");
    memcpy(all + 1 + 16, "0000000000000001", 16);
    assert_string_equal(ask(w, all), "OK");
    assert_true(w->g.cpus[0].gpr[1] == 1ull << 56 && w->g.cpus[0].ftw == 0x81);
    assert_string_equal(ask(w, "P10=efbeadde00000000"), "OK");
    assert_true(w->g.cpus[0].rip == 0xdeadbeef);
    assert_string_equal(ask(w, "P10=efbe"), "E16");
    assert_string_equal(ask(w, "G00"), "E16");
}

static void the_description_is_whole(void **s)
{
    struct world *w = *s;
    char packet[64], *xml = gdb_target_xml();
    size_t len = strlen(xml), off = 0;

    while (off < len) {
        snprintf(packet, sizeof(packet), "qXfer:features:read:target.xml:%zx,3f0", off);
        ask(w, packet);
        assert_int_equal(w->reply.payload[0], off + 0x3f0 < len ? 'm' : 'l');
        assert_memory_equal(w->reply.payload + 1, xml + off, w->reply.n - 1);
        off += w->reply.n - 1;
    }
    assert_int_equal(off, len);
    snprintf(packet, sizeof(packet), "qXfer:features:read:target.xml:%zx,10", len + 1);
    assert_string_equal(ask(w, packet), "E16");
    for (unsigned i = 0; i < GDB_REGS; i++) {
        snprintf(packet, sizeof(packet), "<reg name=\"%s\" ", gdb_regs[i].name);
        assert_non_null(strstr(xml, packet));
    }
    free(xml);
}

static void memory_is_linear_or_physical(void **s)
{
    struct world *w = *s;
    uint8_t got[4];

    assert_string_equal(ask(w, "Mffff800000008000,4:01020304"), "OK");
    assert_string_equal(ask(w, "m8000,4"), "01020304");
    assert_int_equal(gdb_stub_packet(&w->stub, "X8004,2:\x05#", 10, &w->reply), GDB_STAY);
    assert_string_equal(ask(w, "mffff800000008003,3"), "040523");
    assert_string_equal(ask(w, "mffff7ff000008003,3"), "E0e");
    assert_string_equal(ask(w, "mffffe,4"), "0000"); /* RAM ends */
    assert_string_equal(ask(w, "mffff800000200000,1"), "E0e");
    assert_string_equal(ask(w, "qqemu.PhyMemMode"), "0");
    assert_string_equal(ask(w, "Qqemu.PhyMemMode:1"), "OK");
    assert_string_equal(ask(w, "m8000,2"), "0102");
    assert_string_equal(ask(w, "mffff800000008000,4"), "E0e");
    assert_string_equal(ask(w, "Mffffc,8:0102030405060708"), "E0e");
    assert_int_equal(gmem_read(w->g.guest.mem, 0x8000, got, 4), 0);
    assert_memory_equal(got, "\1\2\3\4", 4);
    for (const char *const *bad =
             (const char *const[]){"m", "m,", "m1", "mx,1", "m11111111111111111,1", "M1,2:0", "X1,9:1", NULL};
         *bad; bad++)
        assert_string_equal(ask(w, *bad), "E16");
}

static uint8_t byte_at(struct world *w, gpa_t at)
{
    uint8_t b;

    assert_int_equal(gmem_read(w->g.guest.mem, at, &b, 1), 0);
    return b;
}

static void breakpoints_stand_in_memory_unseen(void **s)
{
    struct world *w = *s;

    assert_string_equal(ask(w, "M8000,4:90919293"), "OK");
    assert_string_equal(ask(w, "Z0,ffff800000008001,1"), "OK");
    assert_string_equal(ask(w, "Z0,ffff800000008001,1"), "OK");
    assert_true(w->g.debug.on && w->g.debug.nbreaks == 1 && w->g.debug.breaks[0] == FAKE_KERNEL + 0x8001);
    assert_int_equal(byte_at(w, 0x8001), 0xcc);
    assert_string_equal(ask(w, "m8000,4"), "90919293");
    assert_string_equal(ask(w, "M8000,2:aaab"), "OK");
    assert_int_equal(byte_at(w, 0x8001), 0xcc);
    assert_string_equal(ask(w, "m8000,2"), "aaab");
    assert_string_equal(ask(w, "z0,ffff800000008001,1"), "OK");
    assert_int_equal(byte_at(w, 0x8001), 0xab);
    assert_int_equal(w->g.debug.nbreaks, 0);
    assert_string_equal(ask(w, "Z0,ffff800000400000,1"), "E0e");
    assert_string_equal(ask(w, "z0,ffff800000400000,1"), "OK");
    /* The guest patches its code: its byte stays. */
    assert_string_equal(ask(w, "Z0,8002,1"), "OK");
    assert_int_equal(gmem_write(w->g.guest.mem, 0x8002, "\x55", 1), 0);
    assert_string_equal(ask(w, "z0,8002,1"), "OK");
    assert_int_equal(byte_at(w, 0x8002), 0x55);
    for (unsigned i = 0; i <= GDB_BREAKS_MAX; i++) {
        char packet[32];

        snprintf(packet, sizeof(packet), "Z0,%x,1", 0x9000 + i);
        assert_string_equal(ask(w, packet), i < GDB_BREAKS_MAX ? "OK" : "E1c");
    }
}

static void hardware_breakpoints_are_four(void **s)
{
    struct world *w = *s;

    assert_string_equal(ask(w, "Z1,1001,3"), "OK");
    assert_string_equal(ask(w, "Z2,2000,8"), "OK");
    assert_string_equal(ask(w, "Z4,3004,4"), "OK");
    assert_string_equal(ask(w, "Z3,3004,4"), "");
    assert_string_equal(ask(w, "Z2,2001,2"), "E16");
    assert_string_equal(ask(w, "Z2,2000,3"), "E16");
    assert_string_equal(ask(w, "Z2,2000,10"), "E16");
    assert_string_equal(ask(w, "Z2,2000,2"), "OK");
    assert_string_equal(ask(w, "Z1,1002,1"), "E1c");
    assert_int_equal(w->g.debug.nhw, 4);
    assert_string_equal(ask(w, "z2,2000,8"), "OK");
    assert_string_equal(ask(w, "z2,2000,8"), "OK");
    assert_int_equal(w->g.debug.nhw, 3);
    assert_true(w->g.debug.hw[1].addr == 0x2000 && w->g.debug.hw[1].len == 2);
    assert_string_equal(ask(w, "Z5,1000,1"), "");
    assert_string_equal(ask(w, "Z1,1000"), "E16");
}

static void stops_are_explained(void **s)
{
    static const struct {
        struct vm_hit hit;
        const char *says;
    } cases[] = {
        {{.what = VM_HIT_NONE}, "T02thread:2;"},
        {{.what = VM_HIT_STEP}, "T05thread:2;"},
        {{.what = VM_HIT_BREAK}, "T05thread:2;swbreak:;"},
        {{.what = VM_HIT_HW, .hw = 0}, "T05thread:2;hwbreak:;"},
        {{.what = VM_HIT_HW, .hw = 1}, "T05thread:2;watch:2000;"},
        {{.what = VM_HIT_HW, .hw = 2}, "T05thread:2;awatch:ffff800000003000;"},
    };
    struct world *w = *s;

    assert_string_equal(ask(w, "?"), "T02thread:1;");
    ask(w, "Z1,1000,1");
    ask(w, "Z2,2000,8");
    ask(w, "Z4,ffff800000003000,8");
    for (size_t i = 0; i < array_len(cases); i++) {
        w->reply.n = 0;
        gdb_stub_stopped(&w->stub, 1, cases[i].hit, &w->reply);
        assert_int_equal(w->reply.n, strlen(cases[i].says));
        assert_memory_equal(w->reply.payload, cases[i].says, w->reply.n);
        assert_string_equal(ask(w, "?"), cases[i].says);
        assert_string_equal(ask(w, "qC"), "QC2");
    }
}

static void each_cpu_gets_its_plan(void **s)
{
    static const struct {
        const char *packet;
        enum vm_plan plans[FAKE_CPUS];
    } cases[] = {
        {"vCont;c", {VM_RUN, VM_RUN}},     {"vCont;s:2;c", {VM_RUN, VM_STEP}},
        {"vCont;s:1", {VM_STEP, VM_STAY}}, {"vCont;C05:2;s:-1", {VM_STEP, VM_RUN}},
        {"c", {VM_RUN, VM_RUN}},           {"s", {VM_STEP, VM_RUN}},
    };
    struct world *w = *s;

    for (size_t i = 0; i < array_len(cases); i++) {
        assert_string_equal(ask(w, cases[i].packet), "");
        assert_int_equal(w->wish, GDB_RESUME);
        assert_memory_equal(w->stub.plans, cases[i].plans, sizeof(cases[i].plans));
    }
    for (const char *const *bad = (const char *const[]){"vCont;x", "vCont;c:3", "vCont;c:", "vCont;", NULL}; *bad;
         bad++) {
        assert_string_equal(ask(w, *bad), "E16");
        assert_int_equal(w->wish, GDB_STAY);
    }
}

static void threads_are_cpus(void **s)
{
    struct world *w = *s;

    assert_string_equal(ask(w, "qfThreadInfo"), "m1,2");
    assert_string_equal(ask(w, "qsThreadInfo"), "l");
    assert_string_equal(ask(w, "Hg2"), "OK");
    assert_string_equal(ask(w, "p10"), "0101000000000000");
    assert_string_equal(ask(w, "Hg0"), "OK");
    assert_string_equal(ask(w, "Hc-1"), "OK");
    assert_string_equal(ask(w, "Hg3"), "E16");
    assert_string_equal(ask(w, "T2"), "OK");
    assert_string_equal(ask(w, "T3"), "E16");
    w->g.cpus[1].activity = CPU_HALTED;
    ask(w, "qThreadExtraInfo,2");
    assert_memory_equal(w->reply.payload, "4350552031", 10);
    assert_string_equal(ask(w, "qThreadExtraInfo,9"), "E16");
}

static void what_is_unknown_gets_nothing(void **s)
{
    struct world *w = *s;

    assert_string_equal(ask(w, "vMustReplyEmpty"), "");
    assert_string_equal(ask(w, ""), "");
    assert_string_equal(ask(w, "qCRC:0,1"), "");
    assert_non_null(strstr(ask(w, "qSupported:swbreak+"), "PacketSize=3fff;"));
    assert_string_equal(ask(w, "QStartNoAckMode"), "OK");
    assert_true(w->stub.no_ack);
    assert_string_equal(ask(w, "qAttached"), "1");
    assert_string_equal(ask(w, "D"), "OK");
    assert_int_equal(w->wish, GDB_DETACH);
    ask(w, "k");
    assert_int_equal(w->wish, GDB_KILL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(registers_have_gdbs_order),     TEST(the_description_is_whole),
        TEST(memory_is_linear_or_physical),  TEST(breakpoints_stand_in_memory_unseen),
        TEST(hardware_breakpoints_are_four), TEST(stops_are_explained),
        TEST(each_cpu_gets_its_plan),        TEST(threads_are_cpus),
        TEST(what_is_unknown_gets_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

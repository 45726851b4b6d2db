/* What a debugger may send: bytes to packets to answers, on a guest with two CPUs and a page table that is its own. */

#include "tools/fuzz/fuzz.h"
#include "vmm/gdb/fake_guest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gdb_input *in = xcalloc(1, sizeof(*in));
    struct gdb_reply *reply = xcalloc(1, sizeof(*reply));
    char *frame = xcalloc(1, GDB_FRAME_MAX);
    struct gdb_stub *stub = xcalloc(1, sizeof(*stub));
    struct fake_guest g;

    fake_guest_init(&g);
    gdb_stub_init(stub, &g.guest);
    for (size_t i = 0; i < size; i++) {
        if (gdb_input_byte(in, data[i]) != GDB_PACKET)
            continue;
        gdb_stub_packet(stub, in->payload, in->n, reply);
        assert(gdb_frame(reply, frame) <= GDB_FRAME_MAX);
        if (i % 3 == 0)
            gdb_stub_stopped(stub, i & 1, (struct vm_hit){.what = VM_HIT_BREAK}, reply);
    }
    gdb_stub_fini(stub);
    assert(fake_guest_is_clean(&g));
    fake_guest_fini(&g);
    free(stub);
    free(frame);
    free(reply);
    free(in);
    return 0;
}

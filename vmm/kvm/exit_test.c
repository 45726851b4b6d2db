#include "vmm/base/cleanup.h"
#include "vmm/base/test.h"
#include "vmm/kvm/engine.h"

/* A CPU without KVM: we write what the kernel would. */
struct fake {
    struct vm *vm;
    struct vcpu *c;
    struct region region;
    unsigned accesses;
    uint64_t last_write;
};
enum { RUN_LEN = 3 * 4096, DATA = 4096, PORT = 0x40, ROOM = (RUN_LEN - DATA) };

static uint64_t count_read(struct region *r, uint64_t off, unsigned size)
{
    (void)off, (void)size;
    return 0x11111111 * (++container_of(r, struct fake, region)->accesses);
}

static void count_write(struct region *r, uint64_t off, uint64_t val, unsigned size)
{
    (void)off, (void)size;
    container_of(r, struct fake, region)->accesses++;
    container_of(r, struct fake, region)->last_write = val;
}

static const struct region_ops ops = {.read = count_read, .write = count_write, .sizes = 1 | 2 | 4 | 8};

static int setup(void **s)
{
    struct fake *f = xcalloc(1, sizeof(*f));

    f->vm = xcalloc(1, sizeof(*f->vm) + sizeof(struct vcpu));
    f->c = f->vm->cpus;
    f->c->vm = f->vm;
    f->c->run = xcalloc(1, RUN_LEN); /* on the heap, so that the sanitizer guards its end */
    f->vm->run_len = RUN_LEN;
    f->vm->pio = bus_create("ports", 0x10000);
    f->vm->mmio = bus_create("memory", 1ull << 48);
    f->region = (struct region){.name = "counter", .ops = &ops, .len = 16};
    *s = f;
    return 0;
}

static int teardown(void **s)
{
    struct fake *f = *s;

    bus_unmap(&f->region);
    bus_destroy(f->vm->pio);
    bus_destroy(f->vm->mmio);
    free(f->c->run);
    free(f->vm);
    free(f);
    return 0;
}

static bool io(struct fake *f, unsigned direction, unsigned size, uint32_t count, uint64_t offset)
{
    enum vm_event e;

    f->c->run->exit_reason = KVM_EXIT_IO;
    f->c->run->io.direction = (uint8_t)direction;
    f->c->run->io.size = (uint8_t)size;
    f->c->run->io.count = count;
    f->c->run->io.port = PORT;
    f->c->run->io.data_offset = offset;
    return vcpu_serve_exit(f->c, &e);
}

static void a_string_of_ports_is_one_access_each(void **s)
{
    struct fake *f = *s;
    uint16_t *data = (uint16_t *)((uint8_t *)f->c->run + DATA);

    assert_int_equal(bus_map(f->vm->pio, &f->region, PORT, NULL), 0);
    assert_true(io(f, KVM_EXIT_IO_IN, 2, 3, DATA));
    assert_int_equal(f->accesses, 3);
    assert_int_equal(data[0], 0x1111);
    assert_int_equal(data[2], 0x3333);
    assert_int_equal(data[3], 0);
    data[4] = 0xbeef;
    assert_true(io(f, KVM_EXIT_IO_OUT, 2, 5, DATA));
    assert_int_equal(f->accesses, 8);
    assert_int_equal(f->last_write, 0xbeef);
}

static void a_string_may_fill_the_run_mapping_to_its_end(void **s)
{
    struct fake *f = *s;

    assert_int_equal(bus_map(f->vm->pio, &f->region, PORT, NULL), 0);
    assert_true(io(f, KVM_EXIT_IO_OUT, 4, ROOM / 4, DATA));
    assert_int_equal(f->accesses, ROOM / 4);
}

static void data_outside_the_run_mapping_is_not_touched(void **s)
{
    struct fake *f = *s;

    assert_int_equal(bus_map(f->vm->pio, &f->region, PORT, NULL), 0);
    assert_false(io(f, KVM_EXIT_IO_OUT, 4, ROOM / 4 + 1, DATA));
    assert_false(io(f, KVM_EXIT_IO_IN, 1, 1, RUN_LEN));
    assert_false(io(f, KVM_EXIT_IO_IN, 4, UINT32_MAX, DATA));
    assert_false(io(f, KVM_EXIT_IO_IN, 1, 1, UINT64_MAX));
    assert_false(io(f, KVM_EXIT_IO_IN, 1, 1, RUN_LEN - 1)); /* no room for the record */
    assert_false(io(f, KVM_EXIT_IO_IN, 0, 1, DATA));
    assert_false(io(f, KVM_EXIT_IO_IN, 1, 0, DATA));
    assert_false(io(f, KVM_EXIT_IO_IN, 8, 1, DATA));
    assert_int_equal(f->accesses, 0);
}

static void mmio_reaches_the_memory_bus(void **s)
{
    struct fake *f = *s;
    struct kvm_run *run = f->c->run;
    enum vm_event e;

    assert_int_equal(bus_map(f->vm->mmio, &f->region, 0xd0000000, NULL), 0);
    run->exit_reason = KVM_EXIT_MMIO;
    run->mmio.phys_addr = 0xd0000008;
    run->mmio.len = 8;
    run->mmio.is_write = 1;
    put_le64(run->mmio.data, 0x0123456789abcdef);
    assert_true(vcpu_serve_exit(f->c, &e));
    assert_true(f->last_write == 0x0123456789abcdef);
    run->mmio.len = 9;
    assert_false(vcpu_serve_exit(f->c, &e));
    run->mmio.len = 0;
    assert_false(vcpu_serve_exit(f->c, &e));
    assert_int_equal(f->accesses, 1);
}

static void reasons_become_events(void **s)
{
    static const struct {
        uint32_t reason, detail; /* detail: of a system event, or a suberror */
        enum vm_event event;
    } cases[] = {
        {KVM_EXIT_SHUTDOWN, 0, VM_TRIPLE_FAULT},
        {KVM_EXIT_SYSTEM_EVENT, KVM_SYSTEM_EVENT_SHUTDOWN, VM_POWEROFF},
        {KVM_EXIT_SYSTEM_EVENT, KVM_SYSTEM_EVENT_RESET, VM_RESET},
        {KVM_EXIT_SYSTEM_EVENT, KVM_SYSTEM_EVENT_CRASH, VM_CRASH},
        {KVM_EXIT_INTERNAL_ERROR, KVM_INTERNAL_ERROR_EMULATION, VM_EMULATION_FAILED},
        {KVM_EXIT_INTERNAL_ERROR, KVM_INTERNAL_ERROR_DELIVERY_EV, VM_ENGINE_ERROR},
        {KVM_EXIT_FAIL_ENTRY, 0, VM_ENTRY_FAILED},
        {KVM_EXIT_HLT, 0, VM_ENGINE_ERROR},
        {KVM_EXIT_DEBUG, 0, VM_ENGINE_ERROR},
        {KVM_EXIT_DIRTY_RING_FULL, 0, VM_ENGINE_ERROR},
        {9999, 0, VM_ENGINE_ERROR},
    };
    struct fake *f = *s;

    for (size_t i = 0; i < array_len(cases); i++) {
        enum vm_event e;

        f->c->run->exit_reason = cases[i].reason;
        f->c->run->internal.suberror = cases[i].detail; /* and system_event.type, which lies there as well */
        assert_false(vcpu_serve_exit(f->c, &e));
        assert_int_equal(e, cases[i].event);
    }
}

static void the_last_exits_are_kept(void **s)
{
    struct fake *f = *s;

    for (unsigned i = 0; i < EXIT_RECORDS + 2; i++) {
        ((uint8_t *)f->c->run)[DATA] = (uint8_t)i;
        assert_true(io(f, KVM_EXIT_IO_OUT, 1, 1, DATA));
    }
    assert_int_equal(f->c->nexits, EXIT_RECORDS + 2);
    assert_int_equal(f->c->exits[1].data, EXIT_RECORDS + 1);
    assert_int_equal(f->c->exits[2].data, 2);
    assert_int_equal(f->c->exits[2].addr, PORT);
    assert_true(f->c->exits[2].write);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_string_of_ports_is_one_access_each, setup, teardown),
        cmocka_unit_test_setup_teardown(a_string_may_fill_the_run_mapping_to_its_end, setup, teardown),
        cmocka_unit_test_setup_teardown(data_outside_the_run_mapping_is_not_touched, setup, teardown),
        cmocka_unit_test_setup_teardown(mmio_reaches_the_memory_bus, setup, teardown),
        cmocka_unit_test_setup_teardown(reasons_become_events, setup, teardown),
        cmocka_unit_test_setup_teardown(the_last_exits_are_kept, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

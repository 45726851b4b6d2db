#include "vmm/base/test.h"
#include "vmm/irq/irq.h"

struct wire {
    unsigned pin, changes;
    bool level;
};

static void wire_set(void *far, unsigned pin, bool level)
{
    struct wire *w = far;

    w->pin = pin;
    w->level = level;
    w->changes++;
}

static void a_shared_line_is_up_while_any_input_is(void **s)
{
    struct wire w = {0};
    struct irq_or o;
    struct irq a, b;

    (void)s;
    irq_or_init(&o, (struct irq){.set = wire_set, .far = &w, .pin = 11});
    a = irq_or_input(&o);
    b = irq_or_input(&o);
    irq_set(a, true);
    assert_true(w.level);
    assert_int_equal(w.pin, 11);
    irq_set(b, true);
    irq_set(a, false);
    assert_true(w.level);
    irq_set(b, false);
    assert_false(w.level);
    assert_int_equal(w.changes, 2);
}

static void only_changes_are_passed_on(void **s)
{
    struct wire w = {0};
    struct irq_or o;
    struct irq a;

    (void)s;
    irq_or_init(&o, (struct irq){.set = wire_set, .far = &w});
    a = irq_or_input(&o);
    irq_set(a, false);
    assert_int_equal(w.changes, 0);
    for (int i = 0; i < 5; i++)
        irq_set(a, true);
    assert_int_equal(w.changes, 1);
}

static void the_last_of_32_inputs_works(void **s)
{
    struct wire w = {0};
    struct irq_or o;
    struct irq last;

    (void)s;
    irq_or_init(&o, (struct irq){.set = wire_set, .far = &w});
    for (int i = 0; i < 32; i++)
        last = irq_or_input(&o);
    irq_set(last, true);
    assert_true(w.level);
    irq_set(last, false);
    assert_false(w.level);
}

static void reset_forgets_silently(void **s)
{
    struct wire w = {0};
    struct irq_or o;
    struct irq a;

    (void)s;
    irq_or_init(&o, (struct irq){.set = wire_set, .far = &w});
    a = irq_or_input(&o);
    irq_set(a, true);
    irq_or_reset(&o);
    assert_int_equal(w.changes, 1);
    irq_set(a, true); /* settle after reset: the far end forgot too */
    assert_int_equal(w.changes, 2);
}

static void an_unconnected_wire_swallows(void **s)
{
    (void)s;
    irq_set((struct irq){0}, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_shared_line_is_up_while_any_input_is),
        cmocka_unit_test(only_changes_are_passed_on),
        cmocka_unit_test(the_last_of_32_inputs_works),
        cmocka_unit_test(reset_forgets_silently),
        cmocka_unit_test(an_unconnected_wire_swallows),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

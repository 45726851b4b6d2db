#include <arpa/inet.h>
#include <stdlib.h>

#include "vmm/base/test.h"
#include "vmm/machine/config.h"

#include "devices/net/net.h"
#include "vmm/machine/board.h"

static struct config make(void)
{
    struct config c;
    struct err err;

    config_init(&c);
    assert_int_equal(opts_set(config_opts, &c, "kernel", "bzImage", &err), 0);
    return c;
}

static void set(struct config *c, const char *key, const char *value)
{
    struct err err;

    if (opts_set(config_opts, c, key, value, &err) < 0)
        fail_msg("%s", err.msg);
}

static void resolve(struct config *c)
{
    struct err err;

    if (config_resolve(c, &err) < 0)
        fail_msg("%s", err.msg);
}

static void assert_refused(struct config *c, const char *part)
{
    struct err err;

    assert_true(config_resolve(c, &err) < 0);
    if (!strstr(err.msg, part))
        fail_msg("\"%s\" lacks \"%s\"", err.msg, part);
    config_fini(c);
}

static const struct config_device *device(const struct config *c, const char *id)
{
    for (unsigned i = 0; i < c->ndevices; i++)
        if (!strcmp(c->devices[i].id, id))
            return &c->devices[i];
    fail_msg("no device %s", id);
    return NULL;
}

static void the_terminal_is_com1_by_default(void **s)
{
    struct config c = make();

    (void)s;
    resolve(&c);
    assert_non_null(strstr(device(&c, "com0")->options, "chardev=stdio"));
    assert_string_equal(c.append.v[0], "console=ttyS0");
    config_fini(&c);
}

static void a_console_on_stdio_leaves_com1_silent(void **s)
{
    struct config c = make();

    (void)s;
    set(&c, "console", "stdio");
    resolve(&c);
    assert_non_null(strstr(device(&c, "com0")->options, "chardev=null"));
    assert_non_null(strstr(device(&c, "console0")->options, "chardev=stdio"));
    assert_int_equal(c.append.n, 1);
    assert_string_equal(c.append.v[0], "console=hvc0");
    config_fini(&c);
}

static void the_users_console_word_is_left_alone(void **s)
{
    struct config c = make();

    (void)s;
    set(&c, "append", "quiet console=tty1");
    resolve(&c);
    assert_int_equal(c.append.n, 1);
    config_fini(&c);
}

static void serial_ports_take_their_addresses_in_turn(void **s)
{
    struct config c = make();

    (void)s;
    for (int i = 0; i < BOARD_UARTS_MAX; i++)
        set(&c, "serial", "null");
    resolve(&c);
    assert_non_null(strstr(device(&c, "com1")->options, "iobase=760"));
    config_fini(&c);

    c = make();
    for (int i = 0; i <= BOARD_UARTS_MAX; i++)
        set(&c, "serial", "null");
    assert_refused(&c, "only 4 serial ports");
}

static void topology_is_completed_or_refused(void **s)
{
    struct config c = make();

    (void)s;
    set(&c, "cpus", "8");
    set(&c, "sockets", "2");
    set(&c, "threads", "2");
    resolve(&c);
    assert_int_equal(c.cores, 2);
    config_fini(&c);

    c = make();
    set(&c, "cpus", "3");
    set(&c, "cores", "2");
    assert_refused(&c, "are 2 CPUs, not 3");
}

static void absurd_memory_is_refused(void **s)
{
    struct config c = make();

    (void)s;
    set(&c, "memory", "60T");
    assert_refused(&c, "more than this host");
    c = make();
    set(&c, "memory", "1048577");
    assert_refused(&c, "whole pages");
    c = make();
    set(&c, "memory-backing", "hugetlb");
    set(&c, "hugepage-size", "1G");
    assert_refused(&c, "whole pages");
}

static void a_uuid_is_made_or_checked(void **s)
{
    struct config c = make();

    (void)s;
    resolve(&c);
    assert_int_equal(strlen(c.uuid), 36);
    assert_int_equal(c.uuid[14], '4');
    config_fini(&c);
    c = make();
    set(&c, "uuid", "12345678-1234-1234-1234-12345678901g");
    assert_refused(&c, "no UUID");
    c = make();
    set(&c, "uuid", "12345678-1234-1234-1234-1234567890123");
    assert_refused(&c, "no UUID");
}

static void a_misspelt_device_gets_a_suggestion(void **s)
{
    struct config c = make();

    (void)s;
    set(&c, "device", "virtio-baloon");
    assert_refused(&c, "did you mean \"virtio-balloon\"");
}

static void network_cards_have_lasting_addresses(void **s)
{
    char *mac = NULL;

    (void)s;
    for (int round = 0; round < 2; round++) {
        struct config c = make();

        set(&c, "name", "web");
        set(&c, "net", "null");
        set(&c, "net", "null,queues=4");
        resolve(&c);
        assert_non_null(strstr(device(&c, "net1")->options, "queues=4"));
        assert_string_not_equal(strstr(device(&c, "net0")->options, ",mac="),
                                strstr(device(&c, "net1")->options, ",mac="));
        if (round)
            assert_string_equal(strstr(device(&c, "net0")->options, ",mac="), mac);
        else
            mac = strdup(strstr(device(&c, "net0")->options, ",mac="));
        config_fini(&c);
    }
    free(mac);
}

static void none_is_no_network_and_stands_alone(void **s)
{
    struct config c = make();

    (void)s;
    set(&c, "net", "none");
    resolve(&c);
    for (unsigned i = 0; i < c.ndevices; i++)
        assert_string_not_equal(c.devices[i].cls->name, "virtio-net");
    config_fini(&c);
    c = make();
    set(&c, "net", "none");
    set(&c, "net", "null");
    assert_refused(&c, "leave one of them out");
    c = make();
    set(&c, "net", "nul");
    assert_refused(&c, "did you mean \"null\"");
}

static void published_ports_need_a_user_network(void **s)
{
    static const char *const bad[] = {"80", "8080:80/icmp", ""};
    struct config c = make();

    (void)s;
    set(&c, "net", "null");
    set(&c, "publish", "8080:80");
    assert_refused(&c, "give --net user");
    for (size_t i = 0; i < array_len(bad); i++) {
        c = make();
        set(&c, "net", "user");
        set(&c, "publish", bad[i]);
        assert_refused(&c, "write HOSTPORT:GUESTPORT");
    }
}

static void networks_tell_what_they_lease(void **s)
{
    static const struct {
        const char *net, *address, *mask, *gateway, *dns; /* NULL: nothing */
    } rows[] = {
        {"user", "10.0.2.15", "255.255.255.0", "10.0.2.2", "10.0.2.3"},
        {"user,net=10.7.0.0/16,dns=10.7.1.1,dhcpstart=10.7.9.9", "10.7.9.9", "255.255.0.0", "10.7.0.2", "10.7.1.1"},
        {"user,ipv4=off"},
        {"user,dns=1.2.3.4"},
        {"null"},
        {"none"},
    };

    (void)s;
    for (size_t i = 0; i < array_len(rows); i++) {
        struct config c = make();
        struct net_lease l;
        struct err err;

        if (!net_class_find("user") && !strncmp(rows[i].net, "user", 4))
            continue;
        set(&c, "net", rows[i].net);
        assert_int_equal(config_resolve(&c, &err), 0);
        assert_int_equal(config_lease(&c, &l), rows[i].address != NULL);
        if (rows[i].address) {
            assert_int_equal(l.address, inet_addr(rows[i].address));
            assert_int_equal(l.mask, inet_addr(rows[i].mask));
            assert_int_equal(l.gateway, inet_addr(rows[i].gateway));
            assert_int_equal(l.dns, inet_addr(rows[i].dns));
        }
        config_fini(&c);
    }
}

static void shares_have_a_tag_and_a_mode(void **s)
{
    static const struct {
        const char *spec, *path, *tag, *mode;
    } rows[] = {
        {"/srv", "path=/srv,", NULL, "mode=ro"},
        {"/srv:data", "path=/srv,", "tag=data", "mode=ro"},
        {"/srv:data,rw,queues=2", "path=/srv,", "tag=data", "mode=rw"},
        {"/a,,b,cow", "path=/a,,b,", NULL, "mode=cow"},
        {"/srv,tag=x", "path=/srv,", "tag=x", "mode=ro"},
    };
    struct config c = make();
    struct err err;

    (void)s;
    for (size_t i = 0; i < array_len(rows); i++)
        set(&c, "share", rows[i].spec);
    resolve(&c);
    for (size_t i = 0; i < array_len(rows); i++) {
        char id[16];

        snprintf(id, sizeof(id), "share%zu", i);
        assert_ptr_equal(strstr(device(&c, id)->options, rows[i].path), device(&c, id)->options);
        assert_non_null(strstr(device(&c, id)->options, rows[i].mode));
        if (rows[i].tag)
            assert_non_null(strstr(device(&c, id)->options, rows[i].tag));
    }
    config_fini(&c);
    c = make();
    set(&c, "share", "/srv,rx");
    assert_int_equal(config_resolve(&c, &err), -EINVAL);
    assert_non_null(strstr(err.msg, "rx"));
    config_fini(&c);
}

/* What --dry-run prints, --config takes back and resolves to the same bytes. */
static void resolved_json_resolves_to_itself(void **s)
{
    struct config c = make(), again;
    char *first, *second;
    struct err err;

    (void)s;
    set(&c, "initrd", "a,b");
    set(&c, "initrd", "c");
    set(&c, "append", "one \"two\"");
    set(&c, "disk", "x,,y.raw,ro");
    set(&c, "device", "virtio-balloon");
    set(&c, "console", "unix:/run/x");
    set(&c, "net", "null,mtu=1400");
    set(&c, "net", "lan=home");
    set(&c, "share", "/srv:data,rw");
    set(&c, "cpus", "4");
    resolve(&c);
    assert_int_equal(config_to_json(&c, &first, &err), 0);
    assert_non_null(strstr(first, "\"path\": \"x,y.raw\""));

    config_init(&again);
    if (config_from_json(&again, first, "first", &err) < 0)
        fail_msg("%s", err.msg);
    resolve(&again);
    assert_int_equal(config_to_json(&again, &second, &err), 0);
    assert_string_equal(first, second);
    free(first);
    free(second);
    config_fini(&c);
    config_fini(&again);
}

static void bad_json_is_told_with_its_place(void **s)
{
    static const struct {
        const char *text, *part;
    } cases[] = {
        {"{\n \"memory\": \"1G\",\n oops }", "line 3"},
        {"[]", "not a JSON object"},
        {"{\"memroy\": \"1G\"}", "did you mean \"memory\""},
        {"{\"memory\": 1.5}", "no string, integer or boolean"},
        {"{\"memory\": null}", "no string, integer or boolean"},
        {"{\"cpus\": 0}", "cpus"},
        {"{\"cpus\": 1, \"cpus\": 2}", "duplicate"},
        {"{\"devices\": [{}]}", "no \"device\""},
        {"{\"devices\": [{\"device\": \"nothing-like-it\"}]}", "nothing-like-it"},
    };

    (void)s;
    for (size_t i = 0; i < array_len(cases); i++) {
        struct config c;
        struct err err = {0};

        config_init(&c);
        assert_true(config_from_json(&c, cases[i].text, "f.json", &err) < 0);
        if (!strstr(err.msg, cases[i].part) || strncmp(err.msg, "f.json: ", 8))
            fail_msg("\"%s\" lacks \"%s\"", err.msg, cases[i].part);
        config_fini(&c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_terminal_is_com1_by_default),
        cmocka_unit_test(a_console_on_stdio_leaves_com1_silent),
        cmocka_unit_test(the_users_console_word_is_left_alone),
        cmocka_unit_test(serial_ports_take_their_addresses_in_turn),
        cmocka_unit_test(topology_is_completed_or_refused),
        cmocka_unit_test(absurd_memory_is_refused),
        cmocka_unit_test(a_uuid_is_made_or_checked),
        cmocka_unit_test(a_misspelt_device_gets_a_suggestion),
        cmocka_unit_test(network_cards_have_lasting_addresses),
        cmocka_unit_test(none_is_no_network_and_stands_alone),
        cmocka_unit_test(published_ports_need_a_user_network),
        cmocka_unit_test(networks_tell_what_they_lease),
        cmocka_unit_test(shares_have_a_tag_and_a_mode),
        cmocka_unit_test(resolved_json_resolves_to_itself),
        cmocka_unit_test(bad_json_is_told_with_its_place),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

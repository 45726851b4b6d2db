#include "vmm/runner/pack.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

#include "devices/net/net.h"
#include "firmware/abi/init.h"
#include "vmm/base/cleanup.h"
#include "vmm/runner/cpio.h"
#include "vmm/runner/has.h"
#include "vmm/runner/modules.h"
#include "vmm/runner/pack_root.h"

/* What a guest of ours has a use for, and when. */
static const struct {
    const char *module, *option; /* the kernel's CONFIG_ that makes it */
    const char *device;          /* only with a device of that class; NULL: always */
    enum board board;            /* only on that one */
    bool needed;
    bool on_disk; /* only for a root on a disk */
} wanted[] = {
    {"virtio_pci", "VIRTIO_PCI", NULL, BOARD_PCI, true},
    {"virtio_mmio", "VIRTIO_MMIO", NULL, BOARD_MMIO, true},
    {"virtio_console", "VIRTIO_CONSOLE", NULL, BOARD_ANY, true},
    {"virtiofs", "VIRTIO_FS", "virtio-fs", BOARD_ANY, true},
    {"virtio_net", "VIRTIO_NET", "virtio-net", BOARD_ANY, true},
    {"virtio_blk", "VIRTIO_BLK", "virtio-blk", BOARD_ANY, true},
    {"virtio_balloon", "VIRTIO_BALLOON", "virtio-balloon", BOARD_ANY, false},
    {"virtio_rng", "HW_RANDOM_VIRTIO", "virtio-rng", BOARD_ANY, false},
    {"pvpanic_mmio", "PVPANIC_MMIO", NULL, BOARD_ANY, false}, /* its ACPI half */
    {"ext4", "EXT4_FS", NULL, BOARD_ANY, false, true},
    {"xfs", "XFS_FS", NULL, BOARD_ANY, false, true},
    {"btrfs", "BTRFS_FS", NULL, BOARD_ANY, false, true},
    {"erofs", "EROFS_FS", NULL, BOARD_ANY, false, true},
    {"squashfs", "SQUASHFS", NULL, BOARD_ANY, false, true},
};

static bool has_device(const struct config *c, const char *class_name)
{
    for (unsigned i = 0; i < c->ndevices; i++)
        if (!strcmp(c->devices[i].cls->name, class_name))
            return true;
    return false;
}

static bool is_wanted(const struct test_spec *s, size_t i)
{
    const struct config *c = s->config;

    return (wanted[i].board == BOARD_ANY || wanted[i].board == c->board) &&
           (!wanted[i].device || has_device(c, wanted[i].device)) &&
           (!wanted[i].on_disk || s->root_kind == TEST_ROOT_DISK);
}

static int lacks(const struct test_spec *s, size_t i, struct err *err)
{
    return err_set(err, ENOENT, "kernel \"%s\" has no %s, built in or as a module; build it with CONFIG_%s=y",
                   s->config->kernel, wanted[i].module, wanted[i].option);
}

/* Of a kernel without modules. */
static int check_built_in(const struct test_spec *s, struct err *err)
{
    for (size_t i = 0; i < array_len(wanted); i++)
        if (wanted[i].needed && is_wanted(s, i) && kernel_has(s, wanted[i].module, wanted[i].option) == HAS_NOT)
            return lacks(s, i, err);
    return 0;
}

static int list_modules(const struct modules *m, const struct test_spec *s, struct module_list *list, struct err *err)
{
    for (size_t i = 0; i < array_len(wanted); i++) {
        int r;

        if (!is_wanted(s, i))
            continue;
        r = modules_need(m, wanted[i].module, list, err);
        if (r == -ENOENT && wanted[i].needed)
            return lacks(s, i, err);
        if (r < 0 && r != -ENOENT)
            return r;
    }
    return 0;
}

static void order(FILE *f, enum init_order kind, const char *value)
{
    static const char names[][8] = INIT_ORDER_NAMES;

    fprintf(f, "%s=%s", names[kind], value);
    fputc(0, f);
}

static void order_number(FILE *f, enum init_order kind, uint64_t value)
{
    char text[24];

    snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
    order(f, kind, text);
}

static int pack_modules(FILE *f, FILE *orders, const struct test_spec *s, struct err *err)
{
    struct module_list list = {.n = 0};
    struct modules m;
    int r;

    static_assert((int)MODULES_MAX <= (int)INIT_MODULES_MAX, "the first process knows fewer");
    if (!s->modules)
        return check_built_in(s, err);
    r = modules_open(&m, s->modules, err);
    if (r >= 0)
        r = list_modules(&m, s, &list, err);
    for (unsigned i = 0; i < list.n && r >= 0; i++) {
        uint8_t *data cleanup_free = NULL;
        char path[32], name[64];
        size_t n;

        r = modules_read(&m, &list, i, &data, &n, err);
        if (r < 0)
            break;
        snprintf(path, sizeof(path), INIT_MODULE, i);
        module_name(&list, i, name, sizeof(name));
        cpio_add(f, path, S_IFREG | 0400, data, (uint32_t)n);
        order(orders, ORDER_MODULE, name);
    }
    modules_close(&m);
    return r;
}

/* A file of the guest's root that glibc's f* functions read; NULL with errno. */
static FILE *open_etc(const struct test_spec *s, const char *name)
{
    char *path cleanup_free = NULL;

    if (asprintf(&path, "%s/etc/%s", strcmp(s->root, "/") ? s->root : "", name) < 0)
        abort();
    return fopen(path, "re");
}

static void order_groups(FILE *f, const struct test_spec *s, const char *user)
{
    FILE *groups = open_etc(s, "group");
    unsigned n = 0;
    struct group *g;

    while (groups && (g = fgetgrent(groups)))
        for (char **member = g->gr_mem; *member && n < INIT_GROUPS_MAX; member++)
            if (!strcmp(*member, user)) {
                order_number(f, ORDER_GROUP, g->gr_gid);
                n++;
            }
    if (groups)
        fclose(groups);
}

static bool numbers(const char *user, unsigned *uid, unsigned *gid)
{
    int end = 0;

    if (sscanf(user, "%u%n:%u%n", uid, &end, gid, &end) < 1 || user[end])
        return false;
    if (!strchr(user, ':'))
        *gid = *uid;
    return true;
}

/* What a user has of its own in the environment. */
static const char *const users_own[] = {"HOME=", "USER=", "LOGNAME=", "SHELL="};

/* By number, or by name as the guest's root has it, whose HOME and so on it then gets. */
static int order_user(FILE *f, const struct test_spec *s, bool *named, struct err *err)
{
    struct passwd *pw = NULL;
    unsigned uid = 0, gid = 0;
    FILE *users;

    if (!s->user)
        return 0;
    if (!numbers(s->user, &uid, &gid)) {
        if (s->root_kind == TEST_ROOT_DISK)
            return err_set(err, EINVAL, "--user %s: names are not looked up in an image; give the user's number",
                           s->user);
        users = open_etc(s, "passwd");
        if (!users)
            return err_set(err, errno, "--user %s: /etc/passwd in root \"%s\": %s; give the user's number", s->user,
                           s->root, strerror(errno));
        while ((pw = fgetpwent(users)) && strcmp(pw->pw_name, s->user) != 0)
            ;
        fclose(users);
        if (!pw)
            return err_set(err, ENOENT, "--user %s: no such user in /etc/passwd of root \"%s\"; give its number",
                           s->user, s->root);
        uid = pw->pw_uid;
        gid = pw->pw_gid;
        order_groups(f, s, pw->pw_name);
        *named = true;
    }
    order_number(f, ORDER_UID, uid);
    order_number(f, ORDER_GID, gid);
    if (pw) {
        const char *const values[] = {pw->pw_dir, pw->pw_name, pw->pw_name, pw->pw_shell};

        static_assert(array_len(values) == array_len(users_own), "each has one");
        for (size_t i = 0; i < array_len(values); i++) {
            char *word cleanup_free = NULL;

            if (asprintf(&word, "%s%s", users_own[i], values[i]) < 0)
                abort();
            order(f, ORDER_ENV, word);
        }
    }
    return 0;
}

static bool is_users_own(const char *word)
{
    for (size_t i = 0; i < array_len(users_own); i++)
        if (!strncmp(word, users_own[i], strlen(users_own[i])))
            return true;
    return false;
}

/* What DHCP would tell, so that nothing in the guest need ask. */
static void order_network(FILE *f, const struct config *c)
{
    char text[40], dns[INET_ADDRSTRLEN];
    struct net_lease l;

    if (!config_lease(c, &l))
        return;
    snprintf(text, sizeof(text), "%u %u %u", l.address, l.mask, l.gateway);
    order(f, ORDER_NET, text);
    order(f, ORDER_DNS, inet_ntop(AF_INET, &l.dns, dns, sizeof(dns)));
}

static int write_orders(FILE *f, const struct test_spec *s, struct err *err)
{
    bool named = false;
    int r = order_user(f, s, &named, err);

    if (r < 0)
        return r;
    if (s->root_kind != TEST_ROOT_DISK)
        order(f, ORDER_ROOT, s->root_kind == TEST_ROOT_SHARED ? TEST_ROOT_TAG : "");
    order(f, ORDER_HOST, s->hostname);
    order(f, ORDER_CWD, s->cwd);
    if (s->systemd)
        order(f, ORDER_SYSTEMD, "");
    if (s->serve)
        order(f, ORDER_SERVE, "");
    if (s->profile)
        order(f, ORDER_PROFILE, "");
    order_number(f, ORDER_CLOCK, (uint64_t)time(NULL));
    order_network(f, s->config);
    if (s->tty) {
        char size[16];

        snprintf(size, sizeof(size), "%u %u", s->cols, s->rows);
        order(f, ORDER_SIZE, size);
    }
    for (char *const *a = s->command; *a; a++)
        order(f, ORDER_ARG, *a);
    for (char *const *e = s->env; *e; e++)
        if (!named || !is_users_own(*e))
            order(f, ORDER_ENV, *e);
    return 0;
}

static int pack(FILE *f, const struct test_spec *s, struct err *err)
{
    char *text cleanup_free = NULL;
    size_t len = 0;
    FILE *orders = open_memstream(&text, &len);
    int r;

    if (!orders)
        abort();
    cpio_add(f, INIT_FOLDER, S_IFDIR | 0755, NULL, 0);
    cpio_add(f, INIT_PROGRAM, S_IFREG | 0755, guest_init, (uint32_t)guest_init_size);
    r = pack_modules(f, orders, s, err);
    if (r >= 0 && s->root_kind == TEST_ROOT_IN_MEMORY)
        r = pack_root(f, s, err);
    if (r >= 0)
        r = write_orders(orders, s, err);
    fclose(orders);
    if (r >= 0 && len > INIT_ORDERS_MAX)
        r = err_set(err, E2BIG, "command and environment have %zu bytes, more than %d; give the command less", len,
                    INIT_ORDERS_MAX);
    if (r < 0)
        return r;
    cpio_add(f, INIT_ORDERS, S_IFREG | 0400, text, (uint32_t)len);
    cpio_end(f);
    return 0;
}

void pack_command(char *const *command, char **ret, size_t *n)
{
    FILE *f = open_memstream(ret, n);

    if (!f)
        abort();
    for (; *command; command++)
        order(f, ORDER_ARG, *command);
    fclose(f);
}

int pack_initrd(const struct test_spec *s, int *ret, struct err *err)
{
    int fd cleanup_fd = memfd_create("bothy initrd", MFD_CLOEXEC);
    int copy = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0), r;
    FILE *f = copy < 0 ? NULL : fdopen(copy, "w");

    if (!f)
        return err_set(err, errno, "memory for the initrd: %s", strerror(errno));
    r = pack(f, s, err);
    if ((ferror(f) | fclose(f)) && r >= 0)
        r = err_set(err, errno, "memory for the initrd: %s", strerror(errno));
    if (r < 0)
        return r;
    *ret = take_fd(&fd);
    return 0;
}

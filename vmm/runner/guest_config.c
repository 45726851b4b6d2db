#include "vmm/runner/guest_config.h"

#include <stdio.h>

#include "firmware/abi/init.h"
#include "vmm/base/cleanup.h"

/* Until a kernel of which a bundle is wanted reboots: long enough for the machine to notice that it panicked. */
enum { PANIC_S = 5 };

/* The machine has nothing of what the root's fstab names, and nobody to log in or to answer questions. */
#define SYSTEMD_WORDS " fstab=no systemd.firstboot=no systemd.getty_auto=no systemd.show_status=no systemd.hostname="

/* Before the user's, which then have the last word.  A kernel that panics is soon gone, but not sooner than seen. */
static int add_words(const struct test_spec *s, struct config *c, struct err *err)
{
    char *words cleanup_free = NULL, *ours;
    int r;

    if (asprintf(&words, "console=ttyS0 quiet panic=%d log_buf_len=1M rdinit=/" INIT_PROGRAM "%s%s%s",
                 s->bundle ? PANIC_S : -1, s->profile ? " initcall_debug" : "", s->systemd ? SYSTEMD_WORDS : "",
                 s->systemd ? s->hostname : "") < 0)
        abort();
    r = opts_set(config_opts, c, "append", words, err);
    if (r < 0)
        return r;
    ours = c->append.v[c->append.n - 1];
    memmove(c->append.v + 1, c->append.v, (c->append.n - 1) * sizeof(ours));
    c->append.v[0] = ours;
    return 0;
}

int guest_config_complete(const struct test_spec *s, struct err *err)
{
    static const struct {
        const char *device, *options;
    } roots[] = {
        [TEST_ROOT_SHARED] = {"virtio-fs", "tag=" TEST_ROOT_TAG ",mode=cow,cache=always"},
        [TEST_ROOT_IN_MEMORY] = {NULL, ""},
        [TEST_ROOT_DISK] = {"virtio-blk", "snapshot=on"},
    };
    struct config *c = s->config;
    char *root cleanup_free = NULL, *console cleanup_free = NULL, *serial cleanup_free = NULL;
    char *comma_free cleanup_free = NULL;
    size_t len;
    FILE *f = open_memstream(&comma_free, &len);
    int r;

    if (!f)
        abort();
    config_put_option(f, "path", s->root);
    fclose(f);
    if (asprintf(&root, "%s,%s", comma_free, roots[s->root_kind].options) < 0 ||
        asprintf(&console,
                 "chardev=null,port=bothy.control:fd:%d,port=bothy.stdin:fd:%d,port=bothy.stdout:fd:%d,"
                 "port=bothy.stderr:fd:%d,port=bothy.log:fd:%d",
                 FD_CONTROL, FD_STDIN, FD_STREAMS + TEST_OUT, FD_STREAMS + TEST_ERR, FD_STREAMS + TEST_LOG) < 0 ||
        asprintf(&serial, "fd:%d", FD_SERIAL) < 0)
        abort();
    if (c->serials.n)
        return err_set(err, EINVAL, "--serial %s: the serial port is for the kernel's log; leave it out",
                       c->serials.v[0]);
    if ((r = opts_set(config_opts, c, "serial", serial, err)) < 0 ||
        (r = config_add_class(c, "virtio-console", console, "ports", err)) < 0 ||
        (roots[s->root_kind].device && (r = config_add_class(c, roots[s->root_kind].device, root, "root", err)) < 0))
        return r;
    if (!c->nets.n && (r = opts_set(config_opts, c, "net", "none", err)) < 0)
        return r;
    if (s->profile && c->control)
        return err_set(err, EINVAL, "--control %s: --profile-boot needs that itself; leave one of them out",
                       c->control);
    if (s->profile && asprintf(&c->control, "fd:%d", FD_MACHINE) < 0)
        abort();
    c->reboot = false;
    return add_words(s, c, err);
}

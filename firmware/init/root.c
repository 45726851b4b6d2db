/* The root, with what a running system has mounted in it, and into it. */
#include <linux/magic.h>
#include <sys/mount.h>

#include "firmware/init/init.h"

enum { PARTITIONS = 15 }; /* that are looked at */

static const struct {
    const char *path, *type, *options;
    unsigned long flags;
    bool needed;
} mounts[] = {
    {"proc", "proc", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC, true},
    {"sys", "sysfs", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC, true},
    {"dev", "devtmpfs", NULL, MS_NOSUID, true},
    {"dev/pts", "devpts", "gid=5,mode=620,ptmxmode=666", MS_NOSUID | MS_NOEXEC, false},
    {"dev/shm", "tmpfs", "mode=1777", MS_NOSUID | MS_NODEV, false},
    {"run", "tmpfs", "mode=755", MS_NOSUID | MS_NODEV, false},
    {"sys/fs/cgroup", "cgroup2", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC, false},
    {"sys/fs/bpf", "bpf", "mode=700", MS_NOSUID | MS_NODEV | MS_NOEXEC, false},
    {"sys/kernel/debug", "debugfs", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC, false},
    {"sys/kernel/tracing", "tracefs", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC, false},
};

static const char *const links[][2] = {
    {"/proc/self/fd", "/dev/fd"},
    {"/proc/self/fd/0", "/dev/stdin"},
    {"/proc/self/fd/1", "/dev/stdout"},
    {"/proc/self/fd/2", "/dev/stderr"},
};

#define NEW_ROOT "/" INIT_ROOT
#define TMP      "/tmp"

static bool mount_any(const char *device)
{
    static const struct {
        const char *type;
        unsigned long flags;
    } kinds[] = {{"ext4", 0}, {"xfs", 0}, {"btrfs", 0}, {"erofs", MS_RDONLY}, {"squashfs", MS_RDONLY}};

    for (unsigned i = 0; i < array_len(kinds); i++)
        if (!SYS(mount, device, NEW_ROOT, kinds[i].type, kinds[i].flags, NULL))
            return true;
    return false;
}

/* The disk itself, or the first of its partitions that looks like a root. */
static void mount_disk(void)
{
    for (unsigned i = 0; i <= PARTITIONS; i++) {
        struct line device = {.n = 0};

        line_add(&device, "/dev/vda");
        if (i)
            line_number(&device, i);
        device.text[device.n] = 0;
        if (!mount_any(device.text))
            continue;
        if (!SYS(access, NEW_ROOT "/etc", 0))
            return;
        SYS(umount2, NEW_ROOT, 0);
    }
    fail(0,
         "find a root on its disk: it or a partition must have an /etc, in a file system that the kernel knows "
         "(CONFIG_EXT4_FS, XFS_FS, BTRFS_FS, EROFS_FS or SQUASHFS)",
         NULL);
}

void enter_root(const struct orders *o)
{
    long r;

    SYS(mkdir, NEW_ROOT, 0755);
    if (!o->root)
        mount_disk();
    else if (!*o->root) /* only what is mounted can be moved */
        SYS(mount, NEW_ROOT, NEW_ROOT, NULL, MS_BIND, NULL);
    else if ((r = SYS(mount, o->root, NEW_ROOT, "virtiofs", 0, NULL)) < 0)
        fail(r, "mount its root (it needs CONFIG_VIRTIO_FS, or by --root a disk's image)", NULL);
    if ((r = SYS(chdir, NEW_ROOT)) < 0)
        fail(r, "enter its root", NULL);
    for (unsigned i = 0; i < array_len(mounts); i++) {
        SYS(mkdir, mounts[i].path, 0755);
        r = SYS(mount, mounts[i].type, mounts[i].path, mounts[i].type, mounts[i].flags, mounts[i].options);
        if (r < 0 && mounts[i].needed)
            fail(r, "mount in its root /", mounts[i].path);
    }
    if ((r = SYS(mount, ".", "/", NULL, MS_MOVE, NULL)) < 0 || (r = SYS(chroot, ".")) < 0)
        fail(r, "make the mounted root its own", NULL);
    if (!SYS(mkdir, TMP, 0777))
        SYS(chmod, TMP, 01777);
    if (SYS(access, TMP, 2 /* W_OK */) < 0) /* in an image that cannot be written to */
        SYS(mount, "tmpfs", TMP, "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777");
    for (unsigned i = 0; i < array_len(links); i++)
        SYS(symlink, links[i][0], links[i][1]);
}

#include "firmware/load/cache.h"
#include "firmware/load/test_images.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

enum { FAKE_SIZE = 1 << 20 }; /* the most of it can be shared */

/* A cache of its own, and a file of the system that has not changed for long: its identity is what counts. */
struct world {
    char home[64], dir[96];
    struct image im;
    struct kernel made;
    struct setup_header hdr;
    struct buf payload; /* stands for any; the cache only hashes it */
};

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    struct bytes vmlinux = fake_vmlinux_of(FAKE_SIZE);
    struct err err;

    strcpy(w->home, "/tmp/bothy-cache-XXXXXX");
    if (!mkdtemp(w->home) || buf_alloc(&w->payload, 100) < 0 || image_open(&w->im, "file", "/bin/sh", &err) < 0)
        return -1;
    snprintf(w->dir, sizeof(w->dir), "%s/bothy/kernels", w->home);
    setenv("XDG_CACHE_HOME", w->home, 1);
    w->hdr = fake_header(100);
    if (kernel_unpack(vmlinux.p, vmlinux.n, &w->hdr, &w->made, &err) < 0)
        return -1;
    bytes_free(&vmlinux);
    *state = w;
    return 0;
}

static void remove_all(const char *path)
{
    pid_t pid = fork();

    if (pid == 0)
        execlp("rm", "rm", "-rf", "--", path, (char *)NULL);
    waitpid(pid, NULL, 0);
}

static int teardown(void **state)
{
    struct world *w = *state;

    remove_all(w->home);
    kernel_fini(&w->made);
    buf_free(&w->payload);
    image_close(&w->im);
    free(w);
    return 0;
}

static struct cache open_cache(struct world *w)
{
    struct cache c;

    cache_open(&c, true, &w->im);
    return c;
}

/* As get_kernel() in bzimage.c does.  True: the cache had it. */
static bool find(struct world *w, struct kernel *ret)
{
    struct cache c = open_cache(w);
    bool found = cache_find_file(&c, ret) == 0 || cache_find_content(&c, &w->hdr, &w->payload, ret) == 0;

    cache_close(&c);
    return found;
}

static void put(struct world *w)
{
    struct cache c = open_cache(w);
    struct bytes vmlinux = fake_vmlinux_of(FAKE_SIZE);
    struct kernel k;

    assert_int_not_equal(cache_find_content(&c, &w->hdr, &w->payload, &k), 0);
    assert_int_equal(kernel_unpack(vmlinux.p, vmlinux.n, &w->hdr, &k, NULL), 0);
    cache_put(&c, &k);
    kernel_fini(&k);
    bytes_free(&vmlinux);
    cache_close(&c);
}

static void assert_same(const struct kernel *a, const struct kernel *b)
{
    assert_memory_equal(&a->hdr, &b->hdr, sizeof(a->hdr));
    assert_int_equal(a->phys, b->phys);
    assert_int_equal(a->memsz, b->memsz);
    assert_int_equal(a->entry, b->entry);
    assert_int_equal(a->nextents, b->nextents);
    for (unsigned i = 0; i < a->nextents; i++) {
        assert_int_equal(a->extents[i].off, b->extents[i].off);
        assert_int_equal(a->extents[i].len, b->extents[i].len);
        assert_memory_equal(a->data + a->extents[i].pos, b->data + b->extents[i].pos, a->extents[i].len);
    }
    assert_int_equal(kernel_relocs(a), kernel_relocs(b));
    assert_memory_equal(a->relocs, b->relocs, kernel_relocs(a) * 4);
}

/* Entries in the cache's directory; the last regular one's path. */
static unsigned count(struct world *w, mode_t kind, char *path)
{
    DIR *d = opendir(w->dir);
    unsigned n = 0;
    struct dirent *e;
    struct stat st;

    while (d && (e = readdir(d))) {
        if (fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 || (st.st_mode & S_IFMT) != kind)
            continue;
        n++;
        if (path)
            snprintf(path, PATH_MAX, "%s/%s", w->dir, e->d_name);
    }
    if (d)
        closedir(d);
    return n;
}

static void what_was_put_is_found_by_file_and_by_content(void **state)
{
    struct world *w = *state;
    struct cache c;
    struct kernel k;

    assert_false(find(w, &k));
    put(w);
    c = open_cache(w);
    assert_int_equal(cache_find_file(&c, &k), 0);
    assert_same(&k, &w->made);
    assert_true(k.fd >= 0);
    kernel_fini(&k);
    assert_int_equal(cache_find_content(&c, &w->hdr, &w->payload, &k), 0);
    assert_same(&k, &w->made);
    kernel_fini(&k);
    cache_close(&c);
}

static void kernel_that_was_put_is_the_file_s(void **state)
{
    struct world *w = *state;
    struct bytes vmlinux = fake_vmlinux_of(FAKE_SIZE);
    struct cache c = open_cache(w);
    struct kernel k;

    assert_int_not_equal(cache_find_content(&c, &w->hdr, &w->payload, &k), 0);
    assert_int_equal(kernel_unpack(vmlinux.p, vmlinux.n, &w->hdr, &k, NULL), 0);
    cache_put(&c, &k);
    assert_true(k.fd >= 0);
    assert_same(&k, &w->made);
    kernel_fini(&k);
    cache_close(&c);
    bytes_free(&vmlinux);
}

static void other_content_is_another_kernel(void **state)
{
    struct world *w = *state;
    struct cache c;
    struct kernel k;

    put(w);
    c = open_cache(w);
    w->payload.p[3] ^= 1;
    assert_int_equal(cache_find_content(&c, &w->hdr, &w->payload, &k), -ENOENT);
    w->payload.p[3] ^= 1;
    w->hdr.init_size++;
    assert_int_equal(cache_find_content(&c, &w->hdr, &w->payload, &k), -ENOENT);
    cache_close(&c);
}

static void file_that_changed_just_now_is_read_again(void **state)
{
    struct world *w = *state;
    char path[128];
    struct kernel k;
    struct cache c;

    image_close(&w->im);
    snprintf(path, sizeof(path), "%s/new", w->home);
    write_file(path, "x", 1);
    assert_int_equal(image_open(&w->im, "file", path, NULL), 0);
    put(w);
    c = open_cache(w);
    assert_int_equal(cache_find_file(&c, &k), -ENOENT);
    assert_int_equal(count(w, S_IFLNK, NULL), 0);
    assert_int_equal(cache_find_content(&c, &w->hdr, &w->payload, &k), 0);
    kernel_fini(&k);
    cache_close(&c);
}

static void damaged_file_is_not_used_and_made_again(void **state)
{
    struct world *w = *state;
    char path[PATH_MAX];
    struct kernel k;

    put(w);
    assert_int_equal(count(w, S_IFREG, path), 1);
    for (int how = 0; how < 6; how++) {
        int fd = open(path, O_RDWR);
        struct stat st;
        uint64_t v = how;

        assert_true(fd >= 0 && fstat(fd, &st) == 0);
        switch (how) {
        case 0:
            assert_int_equal(ftruncate(fd, st.st_size - 1), 0);
            break;
        case 1:
            assert_int_equal(ftruncate(fd, 0), 0);
            break;
        case 2:
            assert_int_equal(pwrite(fd, "X", 1, 0), 1); /* the magic number */
            break;
        case 3:
            assert_int_equal(pwrite(fd, &v, 8, 32), 8); /* a field under the checksum */
            break;
        case 4:
            assert_int_equal(pwrite(fd, "\xff\xff\xff\xff", 4, st.st_size - 4), 4); /* a relocation */
            break;
        case 5:
            assert_int_equal(fchmod(fd, 0666), 0); /* anybody may have written it */
            break;
        }
        close(fd);
        assert_false(find(w, &k));
        put(w);
        assert_true(find(w, &k));
        assert_same(&k, &w->made);
        kernel_fini(&k);
    }
}

static void symbolic_link_in_place_of_a_file_is_not_followed(void **state)
{
    struct world *w = *state;
    char path[PATH_MAX], elsewhere[128];
    struct kernel k;

    put(w);
    assert_int_equal(count(w, S_IFREG, path), 1);
    snprintf(elsewhere, sizeof(elsewhere), "%s/elsewhere", w->home);
    assert_int_equal(rename(path, elsewhere), 0);
    assert_int_equal(symlink(elsewhere, path), 0);
    assert_false(find(w, &k));
}

static void link_to_somewhere_else_is_not_followed(void **state)
{
    struct world *w = *state;
    char path[PATH_MAX];
    struct cache c;
    struct kernel k;

    put(w);
    assert_int_equal(count(w, S_IFLNK, path), 1);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(symlink("../../../../../../../../../../../../../../../../../../../etc/passwd", path), 0);
    c = open_cache(w);
    assert_int_equal(cache_find_file(&c, &k), -ENOENT);
    cache_close(&c);
}

static void directory_of_others_is_not_used(void **state)
{
    struct world *w = *state;
    char bothy[96], real[96];
    struct kernel k;

    put(w);
    assert_int_equal(chmod(w->dir, 0777), 0);
    assert_false(find(w, &k));
    assert_int_equal(chmod(w->dir, 0700), 0);
    assert_true(find(w, &k));
    kernel_fini(&k);
    snprintf(bothy, sizeof(bothy), "%s/bothy", w->home);
    snprintf(real, sizeof(real), "%s/real", w->home);
    assert_int_equal(rename(bothy, real), 0);
    assert_int_equal(symlink(real, bothy), 0);
    assert_false(find(w, &k));
}

static void without_a_cache_all_is_well(void **state)
{
    struct world *w = *state;
    struct kernel k;
    struct cache c;

    setenv("XDG_CACHE_HOME", "/dev/null", 1);
    assert_false(find(w, &k));
    put(w);
    setenv("XDG_CACHE_HOME", "not/absolute", 1);
    setenv("HOME", "/dev/null/home", 1);
    put(w);
    assert_int_equal(access("not", F_OK), -1);
    setenv("XDG_CACHE_HOME", w->home, 1);
    cache_open(&c, false, &w->im);
    assert_int_equal(cache_find_content(&c, &w->hdr, &w->payload, &k), -ENOENT);
    cache_put(&c, &w->made);
    cache_close(&c);
    assert_int_equal(count(w, S_IFREG, NULL), 0);
}

static void make_old(struct world *w, const char *name, uint64_t size, time_t used)
{
    char path[PATH_MAX];
    const struct timespec times[2] = {{.tv_sec = used}, {.tv_sec = used}};
    int fd;

    snprintf(path, sizeof(path), "%s/%s", w->dir, name);
    fd = open(path, O_WRONLY | O_CREAT, 0600);
    assert_true(fd >= 0 && ftruncate(fd, (off_t)size) == 0 && futimens(fd, times) == 0);
    close(fd);
}

static bool exists(struct world *w, const char *name)
{
    char path[PATH_MAX];
    struct stat st;

    snprintf(path, sizeof(path), "%s/%s", w->dir, name);
    return lstat(path, &st) == 0;
}

static void longest_unused_goes_when_the_cache_is_full(void **state)
{
    struct world *w = *state;
    struct cache c = open_cache(w);
    char path[PATH_MAX];

    cache_close(&c); /* the directory is there now */
    make_old(w, "newer", CACHE_MAX / 2, 2000);
    make_old(w, "older", CACHE_MAX / 2, 1000);
    make_old(w, ".tmp-of-a-dead-writer", 10, 1000);
    make_old(w, ".tmp-of-a-live-one", 10, time(NULL));
    snprintf(path, sizeof(path), "%s/dangling", w->dir);
    assert_int_equal(symlink("gone", path), 0);
    put(w);
    assert_true(exists(w, "newer"));
    assert_false(exists(w, "older"));
    assert_false(exists(w, ".tmp-of-a-dead-writer"));
    assert_true(exists(w, ".tmp-of-a-live-one"));
    assert_false(exists(w, "dangling"));
}

static unsigned mappings_of(const char *path)
{
    FILE *f = fopen("/proc/self/maps", "r");
    char line[PATH_MAX + 128];
    unsigned n = 0;

    assert_non_null(f);
    while (fgets(line, sizeof(line), f))
        n += strstr(line, path) != NULL;
    fclose(f);
    return n;
}

static void what_stays_as_it_is_is_mapped_from_the_cache(void **state)
{
    struct world *w = *state;
    uint8_t *got = malloc(FAKE_SIZE);
    struct gmem *mem;
    struct kernel k;
    const uint64_t virt = MiB(2);

    put(w);
    assert_true(find(w, &k));
    assert_int_equal(gmem_create(MiB(32), GMEM_ANON, 0, &mem, NULL), 0);
    assert_int_equal(kernel_place(&k, mem, MiB(4), virt, NULL), 0);
    kernel_fini(&k);
    assert_int_equal(mappings_of(w->home), 1);
    assert_int_equal(gmem_read(mem, MiB(4), got, FAKE_SIZE), 0);
    put_le32(got + FAKE_ABS32, (uint32_t)(get_le32(got + FAKE_ABS32) - virt));
    put_le32(got + FAKE_INVERSE, (uint32_t)(get_le32(got + FAKE_INVERSE) + virt));
    put_le64(got + FAKE_ABS64, get_le64(got + FAKE_ABS64) - virt);
    assert_memory_equal(got, w->made.data, FAKE_SIZE);
    /* What the guest writes does not come into the cache. */
    assert_int_equal(gmem_zero(mem, MiB(4), FAKE_SIZE), 0);
    assert_true(find(w, &k));
    assert_same(&k, &w->made);
    kernel_fini(&k);
    gmem_destroy(mem);
    free(got);
}

static void ram_that_takes_no_mapping_is_copied_to(void **state)
{
    struct world *w = *state;
    uint8_t *got = malloc(FAKE_SIZE);
    struct gmem *mem;
    struct kernel k;

    put(w);
    assert_true(find(w, &k));
    assert_int_equal(gmem_create(MiB(32), GMEM_SHARED, 0, &mem, NULL), 0);
    assert_int_equal(kernel_place(&k, mem, MiB(4), 0, NULL), 0);
    kernel_fini(&k);
    assert_int_equal(mappings_of(w->home), 0);
    assert_int_equal(gmem_read(mem, MiB(4), got, FAKE_SIZE), 0);
    assert_memory_equal(got, w->made.data, FAKE_SIZE);
    gmem_destroy(mem);
    free(got);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(what_was_put_is_found_by_file_and_by_content),
        T(kernel_that_was_put_is_the_file_s),
        T(other_content_is_another_kernel),
        T(file_that_changed_just_now_is_read_again),
        T(damaged_file_is_not_used_and_made_again),
        T(symbolic_link_in_place_of_a_file_is_not_followed),
        T(link_to_somewhere_else_is_not_followed),
        T(directory_of_others_is_not_used),
        T(without_a_cache_all_is_well),
        T(longest_unused_goes_when_the_cache_is_full),
        T(what_stays_as_it_is_is_mapped_from_the_cache),
        T(ram_that_takes_no_mapping_is_copied_to),
#undef T
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

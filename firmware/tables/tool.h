/* For tests: has a tool from outside judge bytes. */
#pragma once
#include <fcntl.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "firmware/tables/blob.h"
#include "vmm/base/test.h"

static inline bool tool_found(const char *name)
{
    char cmd[64];

    snprintf(cmd, sizeof(cmd), "command -v %s >/dev/null", name);
    return system(cmd) == 0;
}

/* A directory for one test, empty; tool_rmdir() removes it with what is in it. */
static inline void tool_mkdir(char dir[32])
{
    strcpy(dir, "/tmp/bothy-test-XXXXXX");
    assert_non_null(mkdtemp(dir));
}

static inline void tool_rmdir(const char *dir)
{
    char cmd[64];

    snprintf(cmd, sizeof(cmd), "rm -r %s", dir);
    assert_int_equal(system(cmd), 0);
}

static inline void tool_write(const char *dir, const char *name, const void *data, size_t n)
{
    char path[64];

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

/* Runs a shell command in `dir`; its whole output is appended to `out` as a string; returns its exit code. */
static inline int tool_run(const char *dir, const char *command, struct blob *out)
{
    char cmd[256], buf[4096];
    size_t n;

    snprintf(cmd, sizeof(cmd), "cd %s && { %s; } 2>&1", dir, command);
    FILE *p = popen(cmd, "r");
    assert_non_null(p);
    while ((n = fread(buf, 1, sizeof(buf), p)) > 0)
        blob_put(out, buf, n);
    blob_u8(out, 0);

    int status = pclose(p);

    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* Installed kselftests (make install of the kernel's tools/testing/selftests) as a command. */
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/base/cleanup.h"
#include "vmm/cli/test.h"

enum { TESTS_MAX = 4096 };

void test_words_free(char **words)
{
    for (char **w = words; *w; w++)
        free(*w);
    free(words);
}

/* "COLLECTION:TEST" by a pattern of that form, or of the collection alone. */
static bool matches(const char *test, const char *pattern)
{
    char *collection cleanup_free = strndup(test, strcspn(test, ":"));

    return collection && !fnmatch(pattern, strchr(pattern, ':') ? test : collection, 0);
}

/* Adds "-t TEST" for each that matches to `words`. */
static int choose(const char *dir, const char *pattern, char **words, struct err *err)
{
    char *path cleanup_free = NULL, *line cleanup_free = NULL;
    size_t cap = 0, n = 0;
    ssize_t len;
    FILE *f;

    if (asprintf(&path, "%s/kselftest-list.txt", dir) < 0)
        abort();
    f = fopen(path, "re");
    if (!f)
        return err_file(err, errno, "kselftest's list", path);
    while (n < TESTS_MAX && (len = getline(&line, &cap, f)) > 0) {
        line[strcspn(line, "\n")] = 0;
        if (!matches(line, pattern))
            continue;
        words[2 * n] = xstrdup("-t");
        words[2 * n + 1] = xstrdup(line);
        n++;
    }
    fclose(f);
    if (!n)
        return err_set(err, ENOENT, "--kselftest: no test in %s is \"%s\"", path, pattern);
    return 0;
}

int test_kselftest(const char *what, char ***ret, struct err *err)
{
    char *given cleanup_free = strndup(what, strcspn(what, ":")), *dir cleanup_free = NULL;
    const char *pattern = strchr(what, ':');
    char **words;
    int r = 0;

    dir = given ? realpath(given, NULL) : NULL;
    if (!dir)
        return err_file(err, errno, "kselftest", given ? given : what);
    words = xcalloc(2 * TESTS_MAX + 2, sizeof(*words));
    if (asprintf(&words[0], "%s/run_kselftest.sh", dir) < 0)
        abort();
    if (access(words[0], X_OK))
        r = err_set(err, errno,
                    "kselftest \"%s\": no run_kselftest.sh; install the tests with: make -C "
                    "tools/testing/selftests install",
                    dir);
    if (r >= 0 && pattern)
        r = choose(dir, pattern + 1, words + 1, err);
    if (r < 0)
        test_words_free(words);
    else
        *ret = words;
    return r;
}

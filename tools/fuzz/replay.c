/* Runs a harness once over each file of its corpus: replay_NAME DIRECTORY */
#include <dirent.h>
#include <stdio.h>
#include <sys/stat.h>

#include "tools/fuzz/fuzz.h"
#include "vmm/base/cleanup.h"

static void replay(const char *path)
{
    FILE *f = fopen(path, "rb");
    cleanup_free uint8_t *data = NULL;
    struct stat st;

    if (!f || fstat(fileno(f), &st) < 0) {
        perror(path);
        exit(1);
    }
    data = xcalloc(1, (size_t)st.st_size); /* of just that size, so that ASan sees reads past the end */
    if (fread(data, 1, (size_t)st.st_size, f) != (size_t)st.st_size) {
        perror(path);
        exit(1);
    }
    fclose(f);
    LLVMFuzzerTestOneInput(data, (size_t)st.st_size);
}

int main(int argc, char **argv)
{
    struct dirent **names;
    int n = argc == 2 ? scandir(argv[1], &names, NULL, alphasort) : -1, files = 0;

    for (int i = 0; i < n; i++) {
        char path[4096];

        snprintf(path, sizeof(path), "%s/%s", argv[1], names[i]->d_name);
        if (names[i]->d_name[0] != '.') {
            replay(path);
            files++;
        }
        free(names[i]);
    }
    if (!files) {
        fprintf(stderr, "%s: no corpus\n", argc == 2 ? argv[1] : "replay");
        return 1;
    }
    free(names);
    printf("%d inputs\n", files);
    return 0;
}

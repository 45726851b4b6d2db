/* A file of matrix axes: what is accepted has runs within the limit, each with a name and values of its own. */
#include "tools/fuzz/fuzz.h"
#include "vmm/base/cleanup.h"
#include "vmm/runner/matrix.h"

struct box {
    char *kernel;
    uint32_t cpus;
    bool kaslr;
    struct opt_list append;
};
static const struct opt box_opts[] = {
    O_STR(struct box, kernel, "kernel", NULL, "a string"),
    O_U32(struct box, cpus, "cpus", "1", 1, 64, "a number"),
    O_BOOL(struct box, kaslr, "kaslr", "on", "a switch"),
    O_LIST(struct box, append, "append", "a list"),
    O_END,
};

static void use(const struct matrix *m)
{
    unsigned runs = matrix_runs(m);

    assert(runs && runs <= MATRIX_RUNS);
    for (unsigned run = 0; run < runs; run += 1 + runs / 16) {
        cleanup_free char *name = matrix_name(m, run);
        struct box box = {0};
        struct err err = {0};

        assert(!name == !m->naxes);
        opts_default(box_opts, &box);
        if (matrix_apply(m, run, box_opts, &box, &err) < 0)
            assert(err.code && err.msg[0]);
        opts_clear(box_opts, &box);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cleanup_free char *text = xcalloc(1, size + 1);
    struct matrix m = {.naxes = 0};
    struct err err = {0};

    memcpy(text, data, size);
    if (!matrix_add_lines(&m, box_opts, text, "matrix", &err))
        use(&m);
    else
        assert(err.code && err.msg[0]);
    matrix_fini(&m);
    return 0;
}

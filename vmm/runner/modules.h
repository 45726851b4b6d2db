/*
 * A kernel's modules: in lib/modules/VERSION, where depmod(8) wrote down what needs what (modules.dep), or where that
 * has not run yet, in a package or the tree that they were built in: there they are listed (modules.order) and say what
 * they need themselves [include/linux/module.h].
 */
#pragma once
#include "vmm/base/base.h"
#include "vmm/base/err.h"

enum { MODULES_MAX = 64, MODULE_BYTES_MAX = 64 << 20 };

struct modules {
    const char *dir;     /* borrowed */
    char *dep, *builtin; /* owned, as is the next */
    char *order;         /* NULL: there is `dep` */
    bool tree;           /* they were built here, so that nothing is below kernel/ or compressed */
};

/* Those to load, in order; paths below the directory, owned by struct modules. */
struct module_list {
    const char *paths[MODULES_MAX]; /* not terminated; without an ending where `order` has them */
    size_t len[MODULES_MAX];
    unsigned n;
};

/* Is it the tree that a kernel and its modules were built in? */
bool modules_in_build_tree(const char *dir);
int modules_open(struct modules *m, const char *dir, struct err *err) must_check;
void modules_close(struct modules *m); /* copes with one that is all zeroes */
/* Adds the module and before it what it needs, where the list has them not; -ENOENT: the kernel has it not at all. */
int modules_need(const struct modules *m, const char *name, struct module_list *list, struct err *err) must_check;
/* The file, decompressed if need be; the caller's to free.  `at`: in the list. */
int modules_read(const struct modules *m, const struct module_list *list, unsigned at, uint8_t **ret, size_t *n,
                 struct err *err) must_check;
/* Its name, as in "virtio_pci", cut to fit. */
void module_name(const struct module_list *list, unsigned at, char *ret, size_t size);
